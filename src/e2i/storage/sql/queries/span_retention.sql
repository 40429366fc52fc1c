-- name: partitions
-- The days of spans with their number, their size and the legal holds that cover them, oldest first.
select name, day, spans, bytes, array(
    select h.name::text from telemetry_holds h where day between h.first_day and h.last_day order by h.name
) as held_by
from (
    select child.relname::text as name, to_date(right(child.relname, 8), 'YYYYMMDD') as day, pg_total_relation_size(child.oid) as bytes,
        coalesce(counted.spans, 0) as spans
    from pg_inherits
    join pg_class child on child.oid = inhrelid
    left join (
        select tableoid, count(*) as spans from ml_observability_spans where day < 'infinity' group by tableoid
    ) counted on counted.tableoid = child.oid
    where inhparent = 'ml_observability_spans'::regclass and child.relname <> 'ml_observability_spans_stray'
) partition
order by day

-- name: strays
-- The days that have no partition and yet some spans.
select 'ml_observability_spans_stray' as name, day, spans, bytes, array(
    select h.name::text from telemetry_holds h where day between h.first_day and h.last_day order by h.name
) as held_by, received_on
from (
    select (started_at at time zone 'UTC')::date as day, count(*) as spans, sum(pg_column_size(stray))::bigint as bytes
    from ml_observability_spans_stray stray
    group by 1
) found
left join telemetry_future_days using (day)
order by day

-- name: read_day
-- Every span of a day, by start.
select
    trace_id, span_id, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, started_nanos, ended_nanos,
    fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin, model_name, status,
    status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain, attributes, events,
    links
from ml_observability_spans
where day in (%(day)s::date, 'infinity')
    and started_at >= %(day)s::date::timestamp at time zone 'UTC'
    and started_at < (%(day)s::date + 1)::timestamp at time zone 'UTC'
order by started_at, started_nanos, trace_id, span_id

-- name: wait_briefly
-- Dropping a partition stops readers and writers while it waits for those that are at work.
set local lock_timeout = '3s'

-- name: freeze_holds
-- Nobody places a hold until the transaction ends.
lock table telemetry_holds in share mode

-- name: holds_of_day
-- The legal holds that cover a day.
select name from telemetry_holds where %(day)s::date between first_day and last_day order by name

-- name: freeze_spans
-- Nobody writes spans, or drops another day, until the transaction ends.
lock table ml_observability_spans in share row exclusive mode

-- name: spans_of_day
-- How many spans `read_day` would tell.
select count(*) as spans
from ml_observability_spans
where day in (%(day)s::date, 'infinity')
    and started_at >= %(day)s::date::timestamp at time zone 'UTC'
    and started_at < (%(day)s::date + 1)::timestamp at time zone 'UTC'

-- name: is_partition
-- Whether the day has a partition of its own.
select to_regclass('ml_observability_spans_' || to_char(%(day)s::date, 'YYYYMMDD')) is not null as is_partition

-- name: drop_day
-- The partition of a day with all its spans.
select drop_span_day(%(day)s::date)

-- name: delete_strays
-- The spans of a day that has no partition.
delete from ml_observability_spans
where day = 'infinity' and (started_at at time zone 'UTC')::date = %(day)s::date
returning span_id

-- name: forget_future_day
-- The day's spans are gone.
delete from telemetry_future_days where day = %(day)s::date

-- name: hold
-- A new legal hold.
insert into telemetry_holds (name, first_day, last_day, reason, actor)
values (%(name)s, %(first)s, %(last)s, %(reason)s, %(actor)s)
on conflict (name) do nothing
returning name

-- name: release
-- End a legal hold.
delete from telemetry_holds where name = %(name)s returning name
