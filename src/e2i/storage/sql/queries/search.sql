-- name: save_study
-- Insert or update a search by its name.
insert into ml_hpo_studies (
    study_name, experiment_id, algorithm_name, problem_type, sampler_name, pruner_name, metric, search_space,
    n_trials, n_completed, n_pruned, n_failed, n_warm_start, best_trial_number, best_value, best_params,
    duration_seconds, started_at, completed_at, status
)
values (
    %(study_name)s, %(experiment_id)s::uuid, %(algorithm)s, %(problem_type)s, %(sampler)s, %(pruner)s, %(metric)s, %(space)s,
    %(n_trials)s, %(n_completed)s, %(n_pruned)s, %(n_failed)s, %(n_warm_start)s, %(best_trial)s, %(best_value)s, %(best_params)s,
    %(seconds)s, now() - make_interval(secs => %(seconds)s), now(), 'completed'
)
on conflict (study_name) do update set
    search_space = excluded.search_space,
    n_trials = excluded.n_trials,
    n_completed = excluded.n_completed,
    n_pruned = excluded.n_pruned,
    n_failed = excluded.n_failed,
    n_warm_start = excluded.n_warm_start,
    best_trial_number = excluded.best_trial_number,
    best_value = excluded.best_value,
    best_params = excluded.best_params,
    duration_seconds = excluded.duration_seconds,
    completed_at = excluded.completed_at,
    status = excluded.status

-- name: remember
-- Keep the best parameters of a search as a pattern, one per search.
insert into hpo_pattern_memory (
    study_name, algorithm_name, problem_type, optimization_metric, best_hyperparameters, best_value,
    n_trials, n_completed, n_pruned, duration_seconds, meta_features, embedding
)
values (
    %(study_name)s, %(algorithm)s, %(problem_type)s, %(metric)s, %(best_params)s, %(best_value)s,
    %(n_trials)s, %(n_completed)s, %(n_pruned)s, %(seconds)s, %(meta_features)s, %(embedding)s::text::vector
)
on conflict (study_name) do update set
    optimization_metric = excluded.optimization_metric,
    best_hyperparameters = excluded.best_hyperparameters,
    best_value = excluded.best_value,
    n_trials = excluded.n_trials,
    n_completed = excluded.n_completed,
    n_pruned = excluded.n_pruned,
    duration_seconds = excluded.duration_seconds,
    meta_features = excluded.meta_features,
    embedding = excluded.embedding,
    updated_at = now()

-- name: similar
-- Patterns of the same algorithm and kind of problem by cosine similarity of their meta-features, best first.
select pattern_id::text as pattern_id, params, value, similarity
from (
    select pattern_id, best_hyperparameters as params, best_value as value,
        least(1, greatest(0, 1 - (embedding <=> %(embedding)s::text::vector))) as similarity
    from hpo_pattern_memory
    where algorithm_name = %(algorithm)s and problem_type = %(problem_type)s
) pattern
where similarity >= %(minimum)s
order by similarity desc, value desc, pattern_id
limit %(limit)s
