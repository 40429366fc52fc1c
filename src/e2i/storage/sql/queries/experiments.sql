-- name: save
-- Insert or update an experiment by its name.
insert into ml_experiments (
    experiment_name, description, problem_type, prediction_target, prediction_horizon_days,
    minimum_auc, minimum_precision_at_k, maximum_fpr, brand, region, scope, created_by
)
values (
    %(experiment_name)s, %(description)s, %(problem_type)s, %(prediction_target)s, %(prediction_horizon_days)s,
    %(minimum_auc)s, %(minimum_precision_at_k)s, %(maximum_fpr)s, %(brand)s, %(region)s, %(scope)s, %(created_by)s
)
on conflict (experiment_name) do update set
    description = excluded.description,
    problem_type = excluded.problem_type,
    prediction_target = excluded.prediction_target,
    prediction_horizon_days = excluded.prediction_horizon_days,
    minimum_auc = excluded.minimum_auc,
    minimum_precision_at_k = excluded.minimum_precision_at_k,
    maximum_fpr = excluded.maximum_fpr,
    brand = excluded.brand,
    region = excluded.region,
    scope = excluded.scope,
    updated_at = now()
returning id::text as id

-- name: set_mlflow_id
-- Link an experiment, by name or id, to MLflow's.
update ml_experiments
set mlflow_experiment_id = %(mlflow_experiment_id)s, updated_at = now()
where experiment_name = %(experiment)s or id::text = %(experiment)s
returning id::text as id

-- name: find
-- Id of an experiment, by name or id.
select id::text as id from ml_experiments where experiment_name = %(experiment)s or id::text = %(experiment)s
