-- Per period, arm and cluster: change of the outcome since the last period before treatment.
WITH complete AS (
  SELECT {unit} AS unit, {time} AS period, {treatment}::DOUBLE AS treatment, {outcome}::DOUBLE AS outcome, {cluster} AS cluster
  FROM {source}
  WHERE {complete}
),
start AS (
  SELECT min(period) AS period FROM complete WHERE treatment <> 0
),
reference AS (
  SELECT max(complete.period) AS period FROM complete JOIN start ON complete.period < start.period
),
arms AS (
  SELECT unit, max(treatment) > 0 AS is_treated FROM complete GROUP BY unit
),
base AS (
  SELECT complete.unit, complete.outcome FROM complete JOIN reference ON complete.period = reference.period
)
SELECT complete.period AS period,
       arms.is_treated AS is_treated,
       complete.cluster AS cluster,
       count(*)::DOUBLE AS count,
       avg(complete.outcome - base.outcome) AS mean,
       var_pop(complete.outcome - base.outcome) * count(*) AS spread,
       any_value(complete.period < start.period) AS is_before
FROM complete
JOIN arms ON complete.unit = arms.unit
JOIN base ON complete.unit = base.unit
CROSS JOIN start
GROUP BY complete.period, arms.is_treated, complete.cluster
ORDER BY complete.period
