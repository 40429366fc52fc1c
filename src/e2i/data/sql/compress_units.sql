-- One row per unit of a balanced panel: products of treatment and outcome after period means.
-- Two hashes of the unit's periods show whether all units have the same ones, each once.
WITH complete AS (
  SELECT {unit} AS unit, {time} AS period, {treatment}::DOUBLE AS treatment, {outcome}::DOUBLE AS outcome, {cluster} AS cluster
  FROM {source}
  WHERE {complete}
),
periods AS (
  SELECT period, avg(treatment) AS treatment, avg(outcome) AS outcome
  FROM complete
  GROUP BY period
)
SELECT count(*) AS rows,
       (sum(hash(complete.period) >> 24))::UBIGINT AS periods,
       sum(complete.treatment - periods.treatment) AS treatment,
       sum(complete.outcome - periods.outcome) AS outcome,
       sum((complete.treatment - periods.treatment) * (complete.treatment - periods.treatment)) AS treatment_square,
       sum((complete.treatment - periods.treatment) * (complete.outcome - periods.outcome)) AS cross_product,
       max(complete.treatment) > 0 AS is_treated,
       min(complete.cluster) AS cluster,
       min(complete.cluster) = max(complete.cluster) AS is_one_cluster
FROM complete
JOIN periods ON complete.period = periods.period
GROUP BY complete.unit
