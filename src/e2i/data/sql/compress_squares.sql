-- Products of regressors, each times the squared residual, for a robust variance.
SELECT {products}
FROM (
  SELECT {columns}, {outcome}::DOUBLE - ({prediction}) AS residual
  FROM {source}
  WHERE {complete}
)
