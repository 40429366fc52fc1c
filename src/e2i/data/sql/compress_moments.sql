-- Cross products per cluster, of columns minus their means over all rows.
SELECT count(*)::DOUBLE, {products}
FROM {source}
WHERE {complete}
GROUP BY {cluster}
ORDER BY {cluster}
