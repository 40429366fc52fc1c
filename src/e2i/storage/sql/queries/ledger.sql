-- name: tracked_runs
-- Training runs, and registry rows of trained models, with the key that their MLflow run carries.
select key, status, mlflow_run_id as run_id, null as model_uri, null as model_name, null as stage, null as digest
from ml_training_runs
union all
select key, 'completed', mlflow_run_id, mlflow_model_uri, model_name, stage::text, model_sha256
from ml_model_registry
where trained_at is not null
order by key, model_name nulls first

-- name: link_training_run
-- MLflow's id, now that it is known.
update ml_training_runs set mlflow_run_id = %(run_id)s where key = %(key)s

-- name: link_model
-- MLflow's id and the model's address, now that they are known.
update ml_model_registry set mlflow_run_id = %(run_id)s, mlflow_model_uri = coalesce(%(model_uri)s, mlflow_model_uri)
where key = %(key)s and trained_at is not null
