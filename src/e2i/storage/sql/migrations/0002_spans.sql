-- Spans by day, latency rollups kept by the writer, shipping state, legal holds.

-- day: the UTC day of started_at, or infinity for a span whose start is far from now; then a broken clock makes no partitions.
-- started_nanos, ended_nanos: nanoseconds after the microsecond of started_at and ended_at.
-- status_code, status_message: OpenTelemetry's; status: what they mean here. fallback_chain: names in the order tried.
-- attributes: name -> value; events: [{name, at_ns, attributes}]; links: [{trace_id, span_id, attributes}].
create table ml_observability_spans (
    trace_id text collate "C" not null,
    span_id text collate "C" not null,
    day date not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    duration_ms double precision,
    input_tokens bigint,
    output_tokens bigint,
    total_tokens bigint generated always as (
        case when input_tokens is null and output_tokens is null then null else coalesce(input_tokens, 0) + coalesce(output_tokens, 0) end
    ) stored,
    total_cost double precision,
    started_nanos smallint not null default 0,
    ended_nanos smallint not null default 0,
    fallback_used boolean not null default false,
    parent_span_id text collate "C",
    agent_name text collate "C",
    agent_tier text collate "C",
    operation_type text collate "C" not null,
    name text not null,
    kind text not null default 'internal',
    service text not null default '',
    scope text not null default '',
    origin text not null default 'e2i',
    model_name text,
    status text not null default 'success' check (status in ('success', 'error')),
    status_code text not null default 'unset' check (status_code in ('unset', 'ok', 'error')),
    status_message text,
    error_type text,
    error_message text,
    experiment_id text,
    run_id text,
    user_id text,
    session_id text,
    fallback_chain jsonb not null default '[]',
    attributes jsonb not null default '{}',
    events jsonb not null default '[]',
    links jsonb not null default '[]',
    primary key (trace_id, span_id, day)
) partition by range (day);
create index ml_observability_spans_time on ml_observability_spans (started_at);
create index ml_observability_spans_agent on ml_observability_spans (agent_name, started_at) where agent_name is not null;
create index ml_observability_spans_error on ml_observability_spans (started_at) where status = 'error';

-- lz4 where the server has it; else none, because pglz costs as much as all the rest of an insert.
do $$
begin
    if 'lz4' = any (select unnest(enumvals) from pg_settings where name = 'default_toast_compression') then
        alter table ml_observability_spans
            alter column attributes set compression lz4, alter column events set compression lz4;
    else
        alter table ml_observability_spans
            alter column attributes set storage external, alter column events set storage external;
    end if;
end
$$;

create table ml_observability_spans_stray partition of ml_observability_spans for values from ('infinity') to (maxvalue);

-- Partitions for those of the days that lack one and are near today; the days that have one in the end.
-- Waits for those who write strays, so that no stray of a day is left behind when the day is made.
-- Attaching lets readers and writers go on; `create table … partition of` would stop them all.
create function ensure_span_days(wanted date[]) returns setof date language plpgsql as $$
declare
    today constant date := (now() at time zone 'UTC')::date;
    chosen date;
    partition text;
begin
    perform pg_advisory_xact_lock(hashtextextended('e2i.span_days', 0));
    for chosen in select distinct w from unnest(wanted) w order by w loop
        partition := 'ml_observability_spans_' || to_char(chosen, 'YYYYMMDD');
        if to_regclass(partition) is null then
            continue when chosen not between today - 400 and today + 2;
            execute format('create table %I (like ml_observability_spans including all)', partition);
            execute format(
                'alter table ml_observability_spans attach partition %I for values from (%L) to (%L)', partition, chosen, chosen + 1
            );
            update ml_observability_spans set day = chosen
            where day = 'infinity' and (started_at at time zone 'UTC')::date = chosen;
        end if;
        return next chosen;
    end loop;
end
$$;

create function drop_span_day(gone date) returns void language plpgsql as $$
begin
    execute format('drop table %I', 'ml_observability_spans_' || to_char(gone, 'YYYYMMDD'));
end
$$;

-- What the spans with an agent come to, by hour and by day (UTC), also those that sampling leaves out of ml_observability_spans.
-- Steps, metrics and feedback are not counted. A span with the attribute e2i.agent.is_part happened inside a call of the same agent: it adds
-- its tokens and cost. Every other one is a call.
-- spans: calls and parts; priced: those of them whose cost is known, so that an unknown cost does not become 0.
-- Not by operation: no question asks for it, and a summary would read, a writer write, three times as many rows.
-- histogram: element i (from 1) is the number of calls in bins 1 to i; bin 1 is below 0.001 ms, bin i + 1 begins at 0.001 * 1.02 ^ (i - 1) ms.
-- A real is exact up to 2 ^ 24, so a new part begins at 2 ^ 23 calls.
create table agent_latency_rollup (
    level text collate "C" not null check (level in ('hour', 'day')),
    bucket timestamptz not null,
    agent_name text collate "C" not null,
    agent_tier text collate "C" not null,
    part smallint not null default 0,
    spans bigint not null,
    calls bigint not null,
    errors bigint not null,
    fallbacks bigint not null,
    duration_sum_ms double precision not null,
    input_tokens numeric not null,
    output_tokens numeric not null,
    priced bigint not null,
    total_cost double precision not null,
    histogram vector(1280) not null,
    primary key (level, bucket, agent_name, agent_tier, part)
) with (fillfactor = 50);
alter table agent_latency_rollup alter column histogram set storage extended;

-- Middle of a bin, in ms: at most 0.991 % from every value in it.
create function latency_of_bin(bin integer) returns double precision language sql immutable parallel safe as $$
    select case when bin < 1 then 0 else 0.001 * power(1.02::double precision, bin - 1) * (2.04 / 2.02) end
$$;

-- As percentile_cont: between the two calls beside the rank, each read from the histogram; null without calls.
create function latency_percentile(cumulative real[], share double precision) returns double precision
language sql immutable parallel safe as $$
    select low + (rank - floor(rank)) * (high - low)
    from (select greatest(cumulative[1280]::double precision - 1, 0) * share as rank where cumulative[1280] > 0) at,
        lateral (select
            latency_of_bin(least(width_bucket(floor(rank)::real, cumulative), 1279)) as low,
            latency_of_bin(least(width_bucket(ceil(rank)::real, cumulative), 1279)) as high
        ) beside
$$;

-- One line per agent and tier for the full hours that [since, until) touches: whole days from the days, the rest from the hours.
-- Latency and rates are null where there are only parts of calls, total_cost where no cost is known.
create function agent_latency_stats(since timestamptz, until timestamptz, agent text default null, tier text default null)
returns table (
    agent_name text, agent_tier text, total_spans bigint, calls bigint, avg_duration_ms double precision,
    p50_ms double precision, p95_ms double precision, p99_ms double precision, error_rate double precision, fallback_rate double precision,
    total_tokens_used numeric, input_tokens numeric, output_tokens numeric, total_cost double precision
) language sql stable parallel safe as $$
    with edges as materialized (
        select first_hour, last_hour, least(first_day, last_hour) as first_day, greatest(last_day, least(first_day, last_hour)) as last_day
        from (select
            date_trunc('hour', since, 'UTC') as first_hour,
            until as last_hour,
            date_trunc('day', date_trunc('hour', since, 'UTC') + interval '23 hours', 'UTC') as first_day,
            date_trunc('day', until, 'UTC') as last_day
        ) raw
    ),
    cells as (
        select r.* from edges, agent_latency_rollup r
        where r.level = 'hour' and r.bucket >= first_hour and r.bucket < first_day
        union all
        select r.* from edges, agent_latency_rollup r
        where r.level = 'day' and r.bucket >= first_day and r.bucket < last_day
        union all
        select r.* from edges, agent_latency_rollup r
        where r.level = 'hour' and r.bucket >= last_day and r.bucket < last_hour
    ),
    sums as (
        select c.agent_name, c.agent_tier, sum(c.spans)::bigint as spans, sum(c.calls)::bigint as calls, sum(c.errors) as errors, sum(c.fallbacks) as fallbacks,
            sum(c.duration_sum_ms) as duration_sum_ms, sum(c.input_tokens) as input_tokens, sum(c.output_tokens) as output_tokens,
            case when sum(c.priced) > 0 then sum(c.total_cost) end as total_cost, sum(c.histogram)::real[] as cumulative
        from cells c
        where (agent is null or c.agent_name = agent) and (tier is null or c.agent_tier = tier)
        group by c.agent_name, c.agent_tier
        having sum(c.spans) > 0
    )
    select s.agent_name, s.agent_tier, s.spans, s.calls, s.duration_sum_ms / nullif(s.calls, 0),
        latency_percentile(s.cumulative, 0.50), latency_percentile(s.cumulative, 0.95), latency_percentile(s.cumulative, 0.99),
        (s.errors / nullif(s.calls, 0))::double precision, (s.fallbacks / nullif(s.calls, 0))::double precision,
        s.input_tokens + s.output_tokens, s.input_tokens, s.output_tokens, s.total_cost
    from sums s
    order by s.agent_name, s.agent_tier
$$;

create view v_agent_latency_summary as
select agent_name, agent_tier, total_spans, calls, avg_duration_ms, p50_ms, p95_ms, p99_ms, error_rate, fallback_rate,
    total_tokens_used, input_tokens, output_tokens, total_cost
from agent_latency_stats(now() - interval '24 hours', now());

-- The same from the spans that are kept: where sampling is on, it misses what is left out, and errors, which are always kept, weigh too much.
create view v_agent_latency_summary_exact as
select
    agent_name,
    coalesce(agent_tier, 'unknown') as agent_tier,
    count(*) as total_spans,
    count(*) filter (where is_call) as calls,
    avg(duration_ms) filter (where is_call) as avg_duration_ms,
    percentile_cont(0.50) within group (order by duration_ms) filter (where is_call) as p50_ms,
    percentile_cont(0.95) within group (order by duration_ms) filter (where is_call) as p95_ms,
    percentile_cont(0.99) within group (order by duration_ms) filter (where is_call) as p99_ms,
    avg((status = 'error')::integer) filter (where is_call)::double precision as error_rate,
    avg(fallback_used::integer) filter (where is_call)::double precision as fallback_rate,
    coalesce(sum(total_tokens), 0) as total_tokens_used,
    coalesce(sum(input_tokens), 0) as input_tokens,
    coalesce(sum(output_tokens), 0) as output_tokens,
    sum(total_cost) as total_cost
from ml_observability_spans, lateral (select not attributes @> '{"e2i.agent.is_part": true}' as is_call) as part
where day between (date_trunc('hour', now() - interval '24 hours', 'UTC') at time zone 'UTC')::date and (now() at time zone 'UTC')::date
    and started_at >= date_trunc('hour', now() - interval '24 hours', 'UTC')
    and started_at < date_trunc('hour', now(), 'UTC') + interval '1 hour'
    and agent_name is not null
    and duration_ms is not null
    and operation_type not in ('step', 'metric', 'feedback')
group by agent_name, coalesce(agent_tier, 'unknown');

-- state: how far each stream of a spool is in the table; written with the rows
create table telemetry_shipments (
    spool_id varchar(100) primary key,
    state json not null,
    updated_at timestamptz not null default now()
);

create table telemetry_holds (
    name varchar(255) primary key,
    first_day date not null,
    last_day date not null,
    reason text not null,
    actor text not null,
    created_at timestamptz not null default now(),
    check (first_day <= last_day)
);
