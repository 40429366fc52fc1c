-- name: save
-- One causal question of a run; a repeated step replaces its row.
insert into causal_paths (
    path_id, run_id, causal_chain, start_node, end_node, path_length, causal_effect_size, effect_low, effect_high, standard_error,
    estimand, design, method_used, interval_method, confounders_controlled, gate_decision, gate_reasons, brand, data_sha256, trace_id, seed
)
values (
    %(path_id)s, %(run_id)s, %(chain)s, %(start_node)s, %(end_node)s, 2, %(effect)s, %(low)s, %(high)s, %(standard_error)s,
    %(estimand)s, %(design)s, %(method)s, %(interval_method)s, %(confounders)s, %(gate)s, %(reasons)s, %(brand)s, %(data_sha256)s,
    %(trace_id)s, %(seed)s
)
on conflict (path_id) do update set
    causal_effect_size = excluded.causal_effect_size,
    effect_low = excluded.effect_low,
    effect_high = excluded.effect_high,
    standard_error = excluded.standard_error,
    estimand = excluded.estimand,
    design = excluded.design,
    method_used = excluded.method_used,
    interval_method = excluded.interval_method,
    confounders_controlled = excluded.confounders_controlled,
    gate_decision = excluded.gate_decision,
    gate_reasons = excluded.gate_reasons,
    trace_id = excluded.trace_id

-- name: clear_validations
-- The tests of an earlier attempt at the same question.
delete from causal_validations where estimate_id = %(path_id)s

-- name: save_validation
-- One test.
insert into causal_validations (
    estimate_id, test_type, status, original_effect, refuted_effect, p_value, statistic, details, gate_decision, brand,
    treatment_variable, outcome_variable
)
values (
    %(path_id)s, %(test)s, %(status)s, %(original)s, %(refuted)s, %(p_value)s, %(statistic)s, %(details)s, %(gate)s, %(brand)s,
    %(treatment)s, %(outcome)s
)

-- name: proven
-- Per cause, on one outcome and brand: the newest answer, where it passed the gate. A newer refusal or doubt takes an older pass back.
select path_id, run_id, start_node, end_node, causal_effect_size, effect_low, effect_high, estimand, design, created_at
from (
    select distinct on (start_node) *
    from causal_paths
    where end_node = %(outcome)s and brand is not distinct from %(brand)s
    order by start_node, created_at desc
) as newest
where gate_decision = 'proceed'
order by start_node
