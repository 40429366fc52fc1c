-- What the router looks at: rows, complete rows, values of the treatment, mean outcome with and without it.
SELECT count(*)::DOUBLE AS rows,
       count(*) FILTER (WHERE {complete})::DOUBLE AS complete,
       count(*) FILTER (WHERE {complete} AND {treatment}::DOUBLE = 1)::DOUBLE AS ones,
       count(*) FILTER (WHERE {complete} AND {treatment}::DOUBLE = 0)::DOUBLE AS zeros,
       min({treatment}::DOUBLE) FILTER (WHERE {complete}) AS low,
       max({treatment}::DOUBLE) FILTER (WHERE {complete}) AS high,
       approx_count_distinct({treatment}) FILTER (WHERE {complete}) AS doses,
       avg({outcome}::DOUBLE) FILTER (WHERE {complete} AND {treatment}::DOUBLE > 0) AS mean_on,
       avg({outcome}::DOUBLE) FILTER (WHERE {complete} AND {treatment}::DOUBLE = 0) AS mean_off{different}
FROM {source}
