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
