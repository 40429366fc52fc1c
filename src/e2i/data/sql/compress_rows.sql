-- Equal rows once: how many, their mean outcome, and the sum of squared distances from it (no cancellation, unlike y²).
SELECT {keys}, count(*)::DOUBLE AS "count of rows", avg({outcome}::DOUBLE) AS "mean of outcome",
       var_pop({outcome}::DOUBLE) * count(*) AS "spread of outcome"
FROM {source}
WHERE {complete}
GROUP BY {keys}
LIMIT {limit}
