-- name: clear
-- Begin again.
truncate ml_observability_spans, agent_latency_rollup

-- name: make_days
-- Partitions for the last 31 days.
select ensure_span_days(array(select (now() at time zone 'UTC')::date - n from generate_series(0, 31) n))

-- name: fill
-- Spans of 18 agents and three operations, twenty to a trace, evenly over 30 days; durations are lognormal.
insert into ml_observability_spans (
    trace_id, span_id, day, started_at, ended_at, duration_ms, input_tokens, output_tokens, total_cost, agent_name, agent_tier,
    operation_type, name, service, status, attributes
)
select
    md5((n / 20)::text), lpad(to_hex(n), 16, '0'), (start at time zone 'UTC')::date, start, start + make_interval(secs => ms / 1000), ms,
    400, 100, 0.01, 'agent_' || lpad((n %% 18)::text, 2, '0'), (enum_range(null::agent_tier_enum))[n %% 6 + 1]::text,
    (array['agent', 'llm', 'tool'])[(n / 18) %% 3 + 1], 'estimate', 'e2i', case when n %% 50 = 0 then 'error' else 'success' end, '{"a": 1}'
from (
    select n, date_trunc('hour', now(), 'UTC') - make_interval(secs => ((n / 20)::bigint * 2654435761 %% 4294967296) / 4294967296.0 * 2591999) as start,
        exp(random_normal(4 + n %% 18 / 6.0, 1))::double precision as ms
    from generate_series(%(first)s::bigint, %(last)s::bigint) n
) made

-- name: clear_rollups
-- Begin again.
truncate agent_latency_rollup

-- name: fill_rollups
-- The hours, from the spans that are there.
insert into agent_latency_rollup
with binned as (
    select date_trunc('hour', started_at, 'UTC') as bucket, agent_name, agent_tier,
        case when duration_ms < 0.001 then 0 else least(floor(ln(duration_ms / 0.001) / ln(1.02::double precision))::integer + 1, 1279) end as bin,
        count(*) as calls, count(*) filter (where status = 'error') as errors, sum(duration_ms) as duration_sum_ms,
        sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens, sum(total_cost) as total_cost
    from ml_observability_spans
    group by 1, 2, 3, 4
),
running as (
    select *, sum(calls) over w as up_to, coalesce(lead(bin) over w, 1280) as next_bin
    from binned
    window w as (partition by bucket, agent_name, agent_tier order by bin)
)
select 'hour', bucket, agent_name, agent_tier, 0, sum(calls), sum(errors), 0, sum(duration_sum_ms), sum(input_tokens),
    sum(output_tokens), sum(total_cost),
    ('[' || repeat('0,', min(bin)) || rtrim(string_agg(repeat(up_to::text || ',', next_bin - bin), '' order by bin), ',') || ']')::vector
from running
group by bucket, agent_name, agent_tier

-- name: fill_days
-- The days, from the hours.
insert into agent_latency_rollup
select 'day', date_trunc('day', bucket, 'UTC'), agent_name, agent_tier, 0, sum(calls), sum(errors), 0, sum(duration_sum_ms),
    sum(input_tokens), sum(output_tokens), sum(total_cost), sum(histogram)
from agent_latency_rollup
where level = 'hour'
group by date_trunc('day', bucket, 'UTC'), agent_name, agent_tier

-- name: tidy
-- What autovacuum does in time.
vacuum (analyze) agent_latency_rollup, ml_observability_spans

-- name: some_trace
-- A trace from the middle.
select trace_id from ml_observability_spans where started_at < now() - interval '3 days' order by started_at desc limit 1

-- name: view
-- The summary of the last day.
select * from v_agent_latency_summary

-- name: exact_view
-- The same from the spans.
select * from v_agent_latency_summary_exact
