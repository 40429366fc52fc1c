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
