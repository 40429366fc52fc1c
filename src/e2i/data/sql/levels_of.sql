SELECT DISTINCT {column}
FROM {source}
WHERE {complete}
LIMIT {limit}
