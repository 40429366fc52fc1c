-- A balanced panel of HCPs and weeks; the hash stands in for a random number, so that every chunk is the same in every run.
SELECT npi,
       week,
       (npi % 3 < 2 AND week >= 40 + 20 * (npi % 3))::TINYINT AS program,
       (1 + npi % 10)::TINYINT AS decile,
       ['east', 'south', 'west'][1 + npi % 3] AS region,
       npi // 50 AS territory,
       20 + decile + 0.01 * week + 2 * program + (hash(npi) % 1000) / 100.0
         + (hash(npi * 1000003 + week) % 10000) / 1000.0 - 5 AS nrx
FROM range({first}, {last}) AS units(npi), range(100) AS periods(week)
