-- When units begin to be treated, and whether any of them stops. Units treated in their first period have no start that is seen.
WITH units AS (
  SELECT min({time}) AS entry,
         min({time}) FILTER (WHERE {treatment}::DOUBLE <> 0) AS start,
         max({time}) FILTER (WHERE {treatment}::DOUBLE = 0) AS last_off
  FROM {source}
  WHERE {complete}
  GROUP BY {unit}
)
SELECT count(start)::DOUBLE, (count(*) - count(start))::DOUBLE, count(DISTINCT start) FILTER (WHERE start > entry)::DOUBLE,
       coalesce(bool_or(last_off > start), false), count(*) FILTER (WHERE start = entry)::DOUBLE
FROM units
