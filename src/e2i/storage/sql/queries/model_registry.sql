-- name: lock_name
-- One change at a time per model name; ends with the transaction.
select pg_advisory_xact_lock(hashtextextended('e2i.ml_model_registry.' || %(model_name)s, 0))

-- name: register
-- A new version, numbered after the highest one; the same key keeps its version and fills in what was not known.
insert into ml_model_registry (
    key, experiment_id, model_name, model_version, mlflow_run_id, mlflow_model_uri, algorithm, hyperparameters,
    feature_count, training_samples, auc, pr_auc, brier_score, calibration_slope, fairness_metrics,
    artifact_path, model_sha256, trained_at
)
values (
    %(key)s, %(experiment_id)s::uuid, %(model_name)s::text,
    (
        select (coalesce(max(model_version::integer) filter (where model_version ~ '^[0-9]+$'), 0) + 1)::text
        from ml_model_registry
        where model_name = %(model_name)s::text
    ),
    %(mlflow_run_id)s, %(mlflow_model_uri)s, %(algorithm)s, %(hyperparameters)s, %(feature_count)s, %(training_samples)s,
    %(auc)s, %(pr_auc)s, %(brier_score)s, %(calibration_slope)s, %(fairness_metrics)s, %(artifact_path)s, %(model_sha256)s,
    case when %(is_trained)s then now() end
)
on conflict (key) do update set
    -- The candidate's run is the selection; once trained, it is the training run, whose id may not be known yet.
    mlflow_run_id = case
        when %(is_trained)s and ml_model_registry.trained_at is null then excluded.mlflow_run_id
        else coalesce(excluded.mlflow_run_id, ml_model_registry.mlflow_run_id)
    end,
    mlflow_model_uri = coalesce(excluded.mlflow_model_uri, ml_model_registry.mlflow_model_uri),
    algorithm = excluded.algorithm,
    hyperparameters = excluded.hyperparameters,
    feature_count = coalesce(excluded.feature_count, ml_model_registry.feature_count),
    training_samples = coalesce(excluded.training_samples, ml_model_registry.training_samples),
    auc = coalesce(excluded.auc, ml_model_registry.auc),
    pr_auc = coalesce(excluded.pr_auc, ml_model_registry.pr_auc),
    brier_score = coalesce(excluded.brier_score, ml_model_registry.brier_score),
    calibration_slope = coalesce(excluded.calibration_slope, ml_model_registry.calibration_slope),
    fairness_metrics = case when %(is_trained)s then excluded.fairness_metrics else ml_model_registry.fairness_metrics end,
    artifact_path = coalesce(excluded.artifact_path, ml_model_registry.artifact_path),
    model_sha256 = coalesce(excluded.model_sha256, ml_model_registry.model_sha256),
    trained_at = coalesce(ml_model_registry.trained_at, excluded.trained_at)
returning id::text as registry_id, model_name as name, model_version as version, stage::text as stage, is_champion,
    mlflow_run_id, mlflow_model_uri as model_uri

-- name: by_key
-- The version of a key.
select model_name, stage::text as stage from ml_model_registry where key = %(key)s

-- name: link_training_run
-- Point the training run at its version.
update ml_training_runs set model_registry_id = %(registry_id)s::uuid where id::text = %(training_run_id)s

-- name: get
-- One version by id.
select id::text as registry_id, model_name as name, model_version as version, stage::text as stage, is_champion,
    mlflow_run_id, mlflow_model_uri as model_uri
from ml_model_registry
where id::text = %(registry_id)s

-- name: set_stage
-- Move a version to another stage.
update ml_model_registry set stage = %(stage)s, promoted_at = now()
where id::text = %(registry_id)s
returning id::text as registry_id, model_name as name, model_version as version, stage::text as stage, is_champion,
    mlflow_run_id, mlflow_model_uri as model_uri

-- name: dethrone
-- The champion of a model name steps down.
update ml_model_registry set is_champion = false
where model_name = %(model_name)s and is_champion
returning id::text as registry_id, model_version as version

-- name: enthrone
-- A version becomes the champion; the champion before it has stepped down in the same transaction.
update ml_model_registry set is_champion = true, promoted_at = now()
where id::text = %(registry_id)s
returning id::text as registry_id, model_name as name, model_version as version, stage::text as stage, is_champion,
    mlflow_run_id, mlflow_model_uri as model_uri

-- name: champion
-- The champion of a model name.
select id::text as registry_id, model_name as name, model_version as version, stage::text as stage, is_champion,
    mlflow_run_id, mlflow_model_uri as model_uri
from ml_model_registry
where model_name = %(model_name)s and is_champion

-- name: versions
-- All versions of one model name, or of all, newest first.
select id::text as registry_id, model_name as name, model_version as version, stage::text as stage, is_champion,
    mlflow_run_id, mlflow_model_uri as model_uri
from ml_model_registry
where %(model_name)s::text is null or model_name = %(model_name)s
order by registered_at desc, model_version desc
