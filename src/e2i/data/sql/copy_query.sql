-- The query stands on lines of its own, so that a comment at its end cannot swallow the bracket.
COPY (
{query}
) TO STDOUT (FORMAT csv)
