SELECT {means}
FROM {source}
WHERE {complete}
