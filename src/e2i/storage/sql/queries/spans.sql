-- name: ensure_days
-- Make partitions for those of these days that are near today; the days that have one.
select day from ensure_span_days(%(days)s::date[]) day

-- name: keep_days
-- Let nobody make a day until the transaction ends.
select pg_advisory_xact_lock_shared(hashtextextended('e2i.span_days', 0))

-- name: made_days
-- Those of these days that have a partition.
select day from unnest(%(days)s::date[]) day
where to_regclass('ml_observability_spans_' || to_char(day, 'YYYYMMDD')) is not null

-- name: note_future_days
-- When the last span came of days that are too far ahead for a partition.
insert into telemetry_future_days (day, received_on)
select day, (now() at time zone 'UTC')::date
from unnest(%(days)s::date[]) day
where day > (now() at time zone 'UTC')::date + 2
order by day
on conflict (day) do update set received_on = excluded.received_on
where telemetry_future_days.received_on < excluded.received_on

-- name: copy_spans
-- Rows as `storage.span_rows` encodes them, straight into their partitions.
copy ml_observability_spans (
    trace_id, span_id, day, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, started_nanos, ended_nanos,
    fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin, model_name, status,
    status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain, attributes, events,
    links
) from stdin (format binary)

-- name: make_arrivals
-- A place for rows of which some may be there already.
create temporary table span_arrivals (like ml_observability_spans) on commit drop

-- name: copy_arrivals
-- The columns of copy_spans.
copy span_arrivals (
    trace_id, span_id, day, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, started_nanos, ended_nanos,
    fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin, model_name, status,
    status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain, attributes, events,
    links
) from stdin (format binary)

-- name: insert_arrivals
-- What is new among the arrivals.
insert into ml_observability_spans (
    trace_id, span_id, day, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, started_nanos, ended_nanos,
    fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin, model_name, status,
    status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain, attributes, events,
    links
)
select
    trace_id, span_id, day, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, started_nanos, ended_nanos,
    fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin, model_name, status,
    status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain, attributes, events,
    links
from span_arrivals
order by day, trace_id, span_id
on conflict do nothing
returning trace_id, span_id

-- name: vector_oid
-- The number of the type `vector` in this database.
select 'vector'::regtype::oid::bigint as oid

-- name: roll_up
-- Add to the rollups, in the order of the key; a part that is full is followed by the next one.
insert into agent_latency_rollup as kept (
    level, bucket, agent_name, agent_tier, part, spans, calls, errors, fallbacks, duration_sum_ms, input_tokens, output_tokens, priced, total_cost,
    histogram
)
select
    level, bucket, agent_name, agent_tier,
    coalesce((
        select newest.part + (newest.calls >= 8388608)::integer from agent_latency_rollup newest
        where (newest.level, newest.bucket, newest.agent_name, newest.agent_tier)
            = (change.level, change.bucket, change.agent_name, change.agent_tier)
        order by newest.part desc
        limit 1
    ), 0),
    spans, calls, errors, fallbacks, duration_sum_ms, input_tokens, output_tokens, priced, total_cost, histogram
from unnest(
    %(levels)s::text[], %(buckets)s::timestamptz[], %(agents)s::text[], %(tiers)s::text[], %(spans)s::bigint[], %(calls)s::bigint[],
    %(errors)s::bigint[], %(fallbacks)s::bigint[], %(durations)s::double precision[], %(inputs)s::numeric[], %(outputs)s::numeric[],
    %(priced)s::bigint[], %(costs)s::double precision[], %(histograms)s::vector[]
) change (
    level, bucket, agent_name, agent_tier, spans, calls, errors, fallbacks, duration_sum_ms, input_tokens, output_tokens, priced, total_cost,
    histogram
)
order by level collate "C", bucket, agent_name collate "C", agent_tier collate "C"
on conflict (level, bucket, agent_name, agent_tier, part) do update set
    spans = kept.spans + excluded.spans,
    calls = kept.calls + excluded.calls,
    errors = kept.errors + excluded.errors,
    fallbacks = kept.fallbacks + excluded.fallbacks,
    duration_sum_ms = kept.duration_sum_ms + excluded.duration_sum_ms,
    input_tokens = kept.input_tokens + excluded.input_tokens,
    output_tokens = kept.output_tokens + excluded.output_tokens,
    priced = kept.priced + excluded.priced,
    total_cost = kept.total_cost + excluded.total_cost,
    histogram = kept.histogram + excluded.histogram

-- name: keep_state
-- How far a spool is.
insert into telemetry_shipments (spool_id, state) values (%(spool_id)s, %(state)s)
on conflict (spool_id) do update set state = excluded.state, updated_at = now()

-- name: begin_state
-- How far a spool is that never shipped; no row when somebody was quicker.
insert into telemetry_shipments (spool_id, state) values (%(spool_id)s, %(state)s)
on conflict (spool_id) do nothing
returning spool_id

-- name: move_state
-- How far a spool is; no row when it is not where we thought.
update telemetry_shipments set state = %(state)s, updated_at = now()
where spool_id = %(spool_id)s and state::jsonb = %(before)s::jsonb
returning spool_id

-- name: state_to_replace
-- How far a spool was; whoever replaces it waits.
select state from telemetry_shipments where spool_id = %(spool_id)s for update

-- name: state
-- How far a spool was at its latest shipment.
select state from telemetry_shipments where spool_id = %(spool_id)s

-- name: lock_traces
-- One writer at a time merges into a trace; 64 locks stand for all traces, taken in one order.
select pg_advisory_xact_lock(hashtext('e2i.span_merge'), number)
from (
    select distinct abs(mod(hashtext(trace_id), 64)) as number from unnest(%(trace_ids)s::text[]) trace_id order by number
) locks

-- name: stored_pieces
-- What is there already of these spans.
select
    tableoid::regclass::text as partition, trace_id, span_id, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost,
    started_nanos, ended_nanos, fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin,
    model_name, status, status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain,
    attributes, events, links
from ml_observability_spans
where (trace_id, span_id) in (select * from unnest(%(trace_ids)s::text[], %(span_ids)s::text[]))
order by trace_id, span_id
for update

-- name: delete_pieces
-- Make room for the merged spans.
delete from ml_observability_spans
where (trace_id, span_id) in (select * from unnest(%(trace_ids)s::text[], %(span_ids)s::text[]))

-- name: latency_stats
-- v_agent_latency_summary for another window; an agent without a call only where it would hide tokens or cost.
select
    agent_name, agent_tier, calls, coalesce(avg_duration_ms, 0) as avg_ms, coalesce(p50_ms, 0) as p50_ms, coalesce(p95_ms, 0) as p95_ms,
    coalesce(p99_ms, 0) as p99_ms, coalesce(error_rate, 0) as error_rate, coalesce(fallback_rate, 0) as fallback_rate,
    input_tokens, output_tokens, total_cost
from agent_latency_stats(now() - %(window)s::interval, now(), %(agent)s, %(tier)s)
where calls > 0 or total_tokens_used > 0 or total_cost > 0

-- name: traces_of_prefix
-- Up to eleven traces whose id begins so.
select distinct trace_id from ml_observability_spans
where trace_id >= %(prefix)s and trace_id < %(prefix)s || '~'
order by trace_id
limit 11

-- name: spans_of_trace
-- All spans of a trace, by start.
select
    trace_id, span_id, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, started_nanos, ended_nanos,
    fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin, model_name, status,
    status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain, attributes, events,
    links
from ml_observability_spans
where trace_id = %(trace_id)s
order by started_at, started_nanos, span_id

-- name: search
-- One page of spans, newest first.
select
    trace_id, span_id, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, started_nanos, ended_nanos,
    fallback_used, parent_span_id, agent_name, agent_tier, operation_type, name, kind, service, scope, origin, model_name, status,
    status_code, status_message, error_type, error_message, experiment_id, run_id, user_id, session_id, fallback_chain, attributes, events,
    links
from ml_observability_spans
where (%(agent)s::text is null or agent_name = %(agent)s)
    and (%(tier)s::text is null or agent_tier = %(tier)s)
    and (%(operation)s::text is null or operation_type = %(operation)s)
    and (%(status)s::text is null or status = %(status)s)
    and (%(trace_id)s::text is null or trace_id = %(trace_id)s)
    and (%(since)s::timestamptz is null or (started_at >= %(since)s and day >= (%(since)s at time zone 'UTC')::date))
    and (%(until)s::timestamptz is null
        or (started_at < %(until)s and (day <= (%(until)s at time zone 'UTC')::date or day = 'infinity')))
    and (%(minimum_ms)s::double precision is null or duration_ms >= %(minimum_ms)s)
    and (%(attributes)s::jsonb is null or attributes @> %(attributes)s)
    and (%(after_at)s::timestamptz is null
        or ((started_at, trace_id, span_id) < (%(after_at)s, %(after_trace)s::text, %(after_span)s::text)
            and (day <= (%(after_at)s at time zone 'UTC')::date or day = 'infinity')))
order by started_at desc, trace_id desc, span_id desc
limit %(limit)s

-- name: newest_of_traces
-- The traces of the newest spans, each with the earliest start among these, and how far back these reach.
select trace_id, min(started_at) as seen_at, min(min(started_at)) over () as reach, (sum(count(*)) over ())::bigint as scanned
from (
    select trace_id, started_at from ml_observability_spans
    where (%(since)s::timestamptz is null or (started_at >= %(since)s and day >= (%(since)s at time zone 'UTC')::date))
        and (%(agent)s::text is null or agent_name = %(agent)s)
    order by started_at desc
    limit %(scan)s
) newest
group by trace_id

-- name: trace_summaries
-- What has arrived of these traces. The root is the span without a parent, or the only one whose parent is not there.
with spans as materialized (
    select trace_id, span_id, parent_span_id, name, started_at, ended_at, status, agent_name, input_tokens, output_tokens, total_cost
    from ml_observability_spans
    where trace_id = any(%(trace_ids)s)
),
tops as (
    select trace_id, name, started_at, parent_span_id is null as has_no_parent, count(*) over (partition by trace_id) as tops
    from spans
    where parent_span_id is null
        or not exists (select from spans parent where parent.trace_id = spans.trace_id and parent.span_id = spans.parent_span_id)
),
roots as (
    select distinct on (trace_id) trace_id, name from tops
    where has_no_parent or tops = 1
    order by trace_id, has_no_parent desc, started_at
)
select
    spans.trace_id,
    min(roots.name) as root_name,
    min(started_at) as started_at,
    greatest(extract(epoch from max(coalesce(ended_at, started_at)) - min(started_at)) * 1000, 0)::double precision as duration_ms,
    count(*) as spans,
    count(*) filter (where status = 'error') as errors,
    coalesce(array_agg(distinct agent_name) filter (where agent_name is not null), '{}') as agents,
    coalesce(sum(input_tokens), 0)::bigint as input_tokens,
    coalesce(sum(output_tokens), 0)::bigint as output_tokens,
    sum(total_cost) as total_cost
from spans left join roots on roots.trace_id = spans.trace_id
group by spans.trace_id
