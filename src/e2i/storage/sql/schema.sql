-- The whole schema, as the migrations leave it; a test compares the two.

create extension if not exists vector;

-- Neighbours in the same database keep their tables apart from ours.
create schema if not exists mlflow;
create schema if not exists optuna;
create schema if not exists langgraph;

create table schema_migrations (
    version integer primary key check (version > 0),
    name text not null unique,
    sha256 text not null check (length(sha256) = 64),
    applied_at timestamptz not null default now()
);

create type brand_type as enum ('Remibrutinib', 'Fabhalta', 'Kisqali', 'competitor', 'other');
create type region_type as enum ('northeast', 'south', 'midwest', 'west');
create type data_split_type as enum ('train', 'validation', 'test', 'holdout', 'unassigned');
create type model_stage_enum as enum ('development', 'staging', 'shadow', 'production', 'archived', 'deprecated');
create type dq_status_enum as enum ('passed', 'failed', 'warning', 'skipped');
create type deployment_status_enum as enum ('pending', 'deploying', 'active', 'draining', 'rolled_back', 'failed');
create type agent_tier_enum as enum (
    'ml_foundation', 'coordination', 'causal_analytics', 'monitoring', 'ml_predictions', 'self_improvement'
);

-- scope: a ScopeSpec
create table ml_experiments (
    id uuid primary key default gen_random_uuid(),
    experiment_name varchar(255) not null unique,
    mlflow_experiment_id varchar(100) unique,
    description text,
    problem_type varchar(50) not null check (problem_type in ('binary_classification', 'multiclass_classification', 'regression')),
    prediction_target varchar(100) not null,
    target_population text,
    observation_window_days integer check (observation_window_days > 0),
    prediction_horizon_days integer check (prediction_horizon_days > 0),
    minimum_auc numeric(4, 3) check (minimum_auc between 0.5 and 1.0),
    minimum_precision_at_k numeric(4, 3) check (minimum_precision_at_k between 0 and 1.0),
    maximum_fpr numeric(4, 3) check (maximum_fpr between 0 and 1.0),
    brand brand_type,
    region region_type,
    scope jsonb not null,
    created_by varchar(100) not null,
    data_split data_split_type not null default 'unassigned',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- key: the caller's own id of the version, so that a repeated step finds its row again
create table ml_model_registry (
    id uuid primary key default gen_random_uuid(),
    key varchar(255) not null unique,
    experiment_id uuid not null references ml_experiments,
    model_name varchar(255) not null,
    model_version varchar(50) not null,
    mlflow_run_id varchar(100),
    mlflow_model_uri text,
    algorithm varchar(100) not null,
    hyperparameters jsonb not null default '{}',
    feature_count integer,
    training_samples integer,
    auc numeric(5, 4) check (auc between 0 and 1.0),
    pr_auc numeric(5, 4) check (pr_auc between 0 and 1.0),
    brier_score numeric(5, 4) check (brier_score between 0 and 1.0),
    calibration_slope double precision,
    fairness_metrics jsonb not null default '{}',
    stage model_stage_enum not null default 'development',
    is_champion boolean not null default false,
    artifact_path text,
    model_sha256 varchar(64),
    preprocessing_pipeline_path text,
    trained_at timestamptz,
    registered_at timestamptz not null default now(),
    promoted_at timestamptz,
    data_split data_split_type not null default 'train',
    unique (model_name, model_version),
    check (not is_champion or stage not in ('archived', 'deprecated'))
);
create unique index ml_model_registry_one_champion on ml_model_registry (model_name) where is_champion;

-- test_metrics: name -> {value, low, high}; train_metrics and validation_metrics: name -> number
create table ml_training_runs (
    id uuid primary key default gen_random_uuid(),
    key varchar(255) not null unique,
    experiment_id uuid not null references ml_experiments,
    model_registry_id uuid references ml_model_registry,
    run_name varchar(255),
    mlflow_run_id varchar(100) unique,
    algorithm varchar(100) not null,
    hyperparameters jsonb not null default '{}',
    training_samples integer not null check (training_samples >= 0),
    validation_samples integer,
    test_samples integer,
    feature_names jsonb not null default '[]',
    train_metrics jsonb not null default '{}',
    validation_metrics jsonb not null default '{}',
    test_metrics jsonb not null default '{}',
    status varchar(50) not null default 'running' check (status in ('running', 'completed', 'failed')),
    error_message text,
    started_at timestamptz not null default now(),
    completed_at timestamptz,
    duration_seconds numeric(12, 3),
    compute_type varchar(50),
    gpu_used boolean not null default false,
    data_split data_split_type not null default 'train',
    optuna_study_name varchar(255),
    optuna_trial_number integer,
    is_best_trial boolean not null default false
);
create index ml_training_runs_newest on ml_training_runs (completed_at desc) where status = 'completed';

create table ml_deployments (
    id uuid primary key default gen_random_uuid(),
    model_registry_id uuid not null references ml_model_registry,
    deployment_name varchar(255) not null,
    environment varchar(50) not null,
    endpoint_name varchar(255),
    endpoint_url text,
    status deployment_status_enum not null default 'pending',
    deployed_by varchar(100) not null,
    deployment_config jsonb not null default '{}',
    shadow_metrics jsonb not null default '{}',
    production_metrics jsonb not null default '{}',
    previous_deployment_id uuid references ml_deployments,
    rollback_reason text,
    rolled_back_at timestamptz,
    deployed_at timestamptz,
    deactivated_at timestamptz,
    latency_p50_ms integer,
    latency_p95_ms integer,
    latency_p99_ms integer,
    error_rate numeric(5, 4) check (error_rate between 0 and 1.0),
    created_at timestamptz not null default now()
);
-- one deployment of a model under a name and environment at a time: a repeated step finds its own
create unique index ml_deployments_current on ml_deployments (model_registry_id, deployment_name, environment)
    where deactivated_at is null;

-- failed_expectations: CheckResults that did not pass; issues and leakage_details: QCIssues
create table ml_data_quality_reports (
    id uuid primary key default gen_random_uuid(),
    key varchar(255) not null unique,
    report_name varchar(255) not null,
    expectation_suite_name varchar(255),
    table_name varchar(100),
    brand brand_type,
    region region_type,
    overall_status dq_status_enum not null,
    overall_score numeric(5, 4) check (overall_score between 0 and 1.0),
    expectations_evaluated integer not null,
    expectations_passed integer not null,
    expectations_failed integer not null,
    success_rate numeric(5, 4) check (success_rate between 0 and 1.0),
    failed_expectations jsonb not null default '[]',
    issues jsonb not null default '[]',
    completeness_score numeric(5, 4) check (completeness_score between 0 and 1.0),
    validity_score numeric(5, 4) check (validity_score between 0 and 1.0),
    uniqueness_score numeric(5, 4) check (uniqueness_score between 0 and 1.0),
    consistency_score numeric(5, 4) check (consistency_score between 0 and 1.0),
    timeliness_score numeric(5, 4) check (timeliness_score between 0 and 1.0),
    accuracy_score numeric(5, 4) check (accuracy_score between 0 and 1.0),
    leakage_detected boolean not null default false,
    leakage_details jsonb not null default '[]',
    row_count bigint not null,
    column_count integer not null,
    data_sha256 varchar(64) not null,
    run_by varchar(100),
    run_at timestamptz not null,
    duration_seconds numeric(12, 3),
    data_split data_split_type not null,
    training_run_id uuid references ml_training_runs,
    created_at timestamptz not null default now(),
    check (expectations_evaluated = expectations_passed + expectations_failed)
);

-- global_importance: feature -> mean absolute contribution; feature_directions: feature -> positive, negative or mixed;
-- top_interactions: [[feature, feature, strength]]; values are on the model's own scale, so they are not bounded
create table ml_shap_analyses (
    id uuid primary key default gen_random_uuid(),
    model_registry_id uuid not null references ml_model_registry,
    analysis_type varchar(50) not null check (analysis_type in ('global', 'segment', 'local')),
    segment_name varchar(100),
    segment_filter jsonb,
    global_importance jsonb not null default '{}',
    feature_directions jsonb not null default '{}',
    top_interactions jsonb not null default '[]',
    entity_type varchar(50),
    entity_id varchar(100),
    local_shap_values jsonb not null default '{}',
    prediction_value double precision,
    base_value double precision,
    additivity_error double precision,
    natural_language_explanation text,
    key_drivers text[],
    actionable_features text[],
    sample_size integer check (sample_size > 0),
    computation_method varchar(50),
    computed_at timestamptz not null default now(),
    computation_duration_seconds numeric(12, 3),
    data_split data_split_type not null default 'test'
);
-- one analysis of a whole split per model: a repeated step replaces its own
create unique index ml_shap_analyses_global on ml_shap_analyses (model_registry_id, data_split) where analysis_type = 'global';

create table ml_hpo_studies (
    id uuid primary key default gen_random_uuid(),
    study_name varchar(255) not null unique,
    experiment_id uuid not null references ml_experiments,
    algorithm_name varchar(100) not null,
    problem_type varchar(50) not null check (problem_type in ('binary_classification', 'multiclass_classification', 'regression')),
    direction varchar(20) not null default 'maximize' check (direction in ('maximize', 'minimize')),
    sampler_name varchar(50) not null,
    pruner_name varchar(50) not null,
    metric varchar(50) not null,
    search_space jsonb not null,
    fixed_params jsonb not null default '{}',
    n_trials integer not null default 0,
    n_completed integer not null default 0,
    n_pruned integer not null default 0,
    n_failed integer not null default 0,
    n_warm_start integer not null default 0,
    best_trial_number integer,
    best_value double precision,
    best_params jsonb not null default '{}',
    duration_seconds numeric(12, 2),
    started_at timestamptz,
    completed_at timestamptz,
    status varchar(50) not null default 'running' check (status in ('running', 'completed', 'failed')),
    error_message text,
    created_by varchar(100) not null default 'optuna_optimizer',
    created_at timestamptz not null default now(),
    check (n_trials = n_completed + n_pruned + n_failed)
);

-- embedding: the standardised meta-features, each as cosine and sine
create table hpo_pattern_memory (
    pattern_id uuid primary key default gen_random_uuid(),
    study_name varchar(255) not null unique,
    algorithm_name varchar(100) not null,
    problem_type varchar(50) not null check (problem_type in ('binary_classification', 'multiclass_classification', 'regression')),
    optimization_metric varchar(50) not null,
    best_hyperparameters jsonb not null,
    best_value double precision not null,
    n_trials integer not null,
    n_completed integer not null,
    n_pruned integer not null default 0,
    duration_seconds double precision,
    meta_features jsonb not null,
    embedding vector(24) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index hpo_pattern_memory_kind on hpo_pattern_memory (algorithm_name, problem_type);

-- claims: how many processes have held the run; only the holder of the newest claim may finish it
create table study_runs (
    run_id varchar(100) primary key,
    study varchar(255) not null,
    fingerprint varchar(128) not null,
    status varchar(20) not null check (status in ('running', 'completed', 'blocked', 'failed')),
    experiment_id varchar(255),
    trace_id varchar(100),
    started_at timestamptz not null,
    finished_at timestamptz,
    report_path text,
    error jsonb,
    holder_pid integer not null,
    holder_host varchar(255) not null,
    claims integer not null default 1 check (claims > 0),
    check ((status = 'running') = (finished_at is null))
);
create index study_runs_unfinished on study_runs (fingerprint, started_at desc) where status = 'running';
create index study_runs_newest on study_runs (started_at desc);

create table agent_steps (
    id bigint generated always as identity primary key,
    run_id varchar(100) not null references study_runs,
    agent varchar(100) not null,
    tier agent_tier_enum not null,
    step varchar(100) not null,
    attempt integer not null check (attempt > 0),
    status varchar(20) not null check (status in ('success', 'error', 'timeout', 'cancelled')),
    started_at timestamptz not null,
    duration_ms double precision not null check (duration_ms >= 0),
    trace_id varchar(100),
    span_id varchar(100),
    error jsonb,
    input_tokens integer check (input_tokens >= 0),
    output_tokens integer check (output_tokens >= 0)
);
create index agent_steps_of_run on agent_steps (run_id);
create index agent_steps_by_time on agent_steps (started_at);

-- details keeps its exact text (json, not jsonb), because the text is what the hash covers
create table audit_log (
    sequence bigint primary key check (sequence > 0),
    occurred_at timestamptz not null,
    actor text not null,
    action text not null,
    subject text not null,
    details json not null,
    previous_hash text not null check (length(previous_hash) = 64),
    entry_hash text not null unique check (length(entry_hash) = 64)
);

create function refuse_audit_change() returns trigger language plpgsql as $$
begin
    raise exception 'audit_log is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end
$$;
create trigger audit_log_keep_rows before update or delete on audit_log for each row execute function refuse_audit_change();
create trigger audit_log_keep_table before truncate on audit_log for each statement execute function refuse_audit_change();

-- payload keeps its exact text, so that a number arrives as it was sent
create table outbox (
    message_id bigint generated always as identity primary key,
    target varchar(50) not null,
    key varchar(255) not null,
    operation varchar(100) not null,
    payload json not null,
    status varchar(20) not null default 'pending' check (status in ('pending', 'delivered', 'quarantined')),
    attempts integer not null default 0 check (attempts >= 0),
    error text,
    result jsonb,
    created_at timestamptz not null default now(),
    delivered_at timestamptz,
    check ((status = 'delivered') = (delivered_at is not null))
);
create index outbox_pending on outbox (target, message_id) where status = 'pending';
create index outbox_of_key on outbox (target, key, message_id);

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

-- Days that no clock should have named yet when their spans came, and when the last of them came: their retention counts from that day,
-- since their own date may be centuries away.
create table telemetry_future_days (
    day date primary key,
    received_on date not null
);

-- Causal findings and the tests that tried to refute them.

create type gate_decision as enum ('proceed', 'review', 'block');
create type validation_status as enum ('passed', 'failed', 'warning', 'skipped');

-- one row per causal question of a run, also when the answer was refused: then there is no effect size
create table causal_paths (
    path_id varchar(120) primary key,
    run_id varchar(100) not null references study_runs,
    discovery_date date not null default current_date,
    causal_chain jsonb not null,
    start_node varchar(255) not null,
    end_node varchar(255) not null,
    path_length integer not null check (path_length >= 2),
    causal_effect_size double precision,
    effect_low double precision,
    effect_high double precision,
    standard_error double precision,
    confidence_level numeric(4, 3) not null default 0.95 check (confidence_level between 0 and 1),
    estimand varchar(20),
    design varchar(50),
    method_used text,
    interval_method text,
    confounders_controlled text[] not null default '{}',
    gate_decision gate_decision not null,
    gate_reasons text[] not null default '{}',
    brand brand_type,
    data_sha256 varchar(64) not null,
    trace_id varchar(100),
    seed bigint not null,
    created_at timestamptz not null default now(),
    check (gate_decision <> 'proceed' or causal_effect_size is not null)
);
create index causal_paths_of_run on causal_paths (run_id);
create index causal_paths_proven on causal_paths (end_node, brand, created_at desc) where gate_decision = 'proceed';

create table causal_validations (
    validation_id uuid primary key default gen_random_uuid(),
    estimate_id varchar(120) not null references causal_paths on delete cascade,
    test_type varchar(100) not null,
    status validation_status not null,
    original_effect double precision,
    refuted_effect double precision,
    p_value double precision check (p_value between 0 and 1),
    statistic double precision,
    details text not null,
    gate_decision gate_decision not null,
    brand brand_type,
    treatment_variable varchar(255) not null,
    outcome_variable varchar(255) not null,
    created_at timestamptz not null default now()
);
create index causal_validations_of_estimate on causal_validations (estimate_id);
