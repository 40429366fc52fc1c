-- How many units, and how many rows one of them has at most.
SELECT count(*)::DOUBLE, coalesce(max(rows), 0)::DOUBLE
FROM (SELECT count(*) AS rows FROM {source} WHERE {complete} GROUP BY {unit})
