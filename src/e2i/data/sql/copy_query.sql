-- The query stands on lines of its own, so that a comment at its end cannot swallow the bracket.
COPY (
SELECT {columns} FROM (
{query}
) AS source
) TO STDOUT (FORMAT csv)
