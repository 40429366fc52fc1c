-- name: save
-- The analysis of a whole split; a repeated one replaces its row.
insert into ml_shap_analyses (
    model_registry_id, analysis_type, global_importance, feature_directions, top_interactions, base_value, additivity_error,
    natural_language_explanation, key_drivers, sample_size, computation_method, computation_duration_seconds, data_split
)
values (
    %(registry_id)s::uuid, 'global', %(global_importance)s, %(feature_directions)s, %(top_interactions)s, %(base_value)s,
    %(additivity_error)s, %(narrative)s, %(key_drivers)s, %(sample_size)s, %(method)s, %(seconds)s, %(split)s
)
on conflict (model_registry_id, data_split) where analysis_type = 'global' do update set
    global_importance = excluded.global_importance,
    feature_directions = excluded.feature_directions,
    top_interactions = excluded.top_interactions,
    base_value = excluded.base_value,
    additivity_error = excluded.additivity_error,
    natural_language_explanation = excluded.natural_language_explanation,
    key_drivers = excluded.key_drivers,
    sample_size = excluded.sample_size,
    computation_method = excluded.computation_method,
    computation_duration_seconds = excluded.computation_duration_seconds,
    computed_at = now()
returning id::text as id
