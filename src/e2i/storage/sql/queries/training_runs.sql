-- name: start
-- Begin a run; a repeated start of the same key finds its row and opens a failed one again.
insert into ml_training_runs (key, experiment_id, run_name, algorithm, training_samples, feature_names)
values (%(key)s, %(experiment_id)s::uuid, %(run_name)s, %(algorithm)s, %(training_samples)s, %(feature_names)s)
on conflict (key) do update set
    status = case when ml_training_runs.status = 'failed' then 'running' else ml_training_runs.status end,
    error_message = null,
    completed_at = case when ml_training_runs.status = 'failed' then null else ml_training_runs.completed_at end
returning id::text as id

-- name: lock
-- Status of a run; nobody else changes it in the meantime.
select status from ml_training_runs where id::text = %(id)s for update

-- name: finish
-- Complete a run.
update ml_training_runs set
    status = 'completed',
    algorithm = %(algorithm)s,
    hyperparameters = %(hyperparameters)s,
    training_samples = %(training_samples)s,
    validation_samples = %(validation_samples)s,
    test_samples = %(test_samples)s,
    feature_names = %(feature_names)s,
    train_metrics = %(train_metrics)s,
    validation_metrics = %(validation_metrics)s,
    test_metrics = %(test_metrics)s,
    mlflow_run_id = coalesce(%(mlflow_run_id)s, mlflow_run_id),
    duration_seconds = %(duration_seconds)s,
    optuna_study_name = %(optuna_study_name)s,
    optuna_trial_number = %(optuna_trial_number)s,
    is_best_trial = %(is_best_trial)s,
    error_message = null,
    completed_at = now()
where id::text = %(id)s

-- name: fail
-- Mark a run as failed, by its id or its key.
update ml_training_runs set status = 'failed', error_message = %(error)s, completed_at = now()
where id::text = %(id)s or key = %(id)s
returning id::text as id

-- name: history
-- Completed runs of one kind of problem, newest first.
select r.algorithm, e.problem_type, r.test_metrics, r.completed_at
from ml_training_runs r
join ml_experiments e on e.id = r.experiment_id
where r.status = 'completed' and e.problem_type = %(problem_type)s
order by r.completed_at desc, r.id
limit %(limit)s
