-- name: received_since
-- How many spans of others began since a moment, by who brought them.
select origin, count(*) as spans, max(started_at) as newest
from ml_observability_spans
where origin <> 'e2i' and started_at between %(since)s and now() + interval '1 day'
group by origin
order by origin
