-- name: lock_fingerprint
-- Take the session's lock on a fingerprint; it is free again the moment this session ends.
select pg_try_advisory_lock(hashtextextended('e2i.study_runs.' || %(fingerprint)s, 0)) as is_mine

-- name: unfinished
-- The newest unfinished run of a fingerprint.
select run_id, holder_pid, holder_host from study_runs
where fingerprint = %(fingerprint)s and status = 'running'
order by started_at desc, run_id
limit 1

-- name: take_over
-- A new holder for an unfinished run.
update study_runs set holder_pid = %(pid)s, holder_host = %(host)s, claims = claims + 1
where run_id = %(run_id)s
returning run_id, study, fingerprint, status, experiment_id, trace_id, started_at, finished_at, report_path, error, claims

-- name: insert
-- A new run.
insert into study_runs (
    run_id, study, fingerprint, status, experiment_id, trace_id, started_at, finished_at, report_path, error, holder_pid, holder_host
)
values (
    %(run_id)s, %(study)s, %(fingerprint)s, %(status)s, %(experiment_id)s, %(trace_id)s, %(started_at)s,
    %(finished_at)s, %(report_path)s, %(error)s, %(pid)s, %(host)s
)
returning run_id, study, fingerprint, status, experiment_id, trace_id, started_at, finished_at, report_path, error, claims

-- name: finish
-- The end of a run, written by the holder of the newest claim only.
update study_runs set
    status = %(status)s, experiment_id = %(experiment_id)s, trace_id = %(trace_id)s, finished_at = %(finished_at)s,
    report_path = %(report_path)s, error = %(error)s
where run_id = %(run_id)s and claims = %(claims)s
returning run_id

-- name: record_step
-- One execution of one step.
insert into agent_steps (
    run_id, agent, tier, step, attempt, status, started_at, duration_ms, trace_id, span_id, error, input_tokens, output_tokens
)
values (
    %(run_id)s, %(agent)s, %(tier)s, %(step)s, %(attempt)s, %(status)s, %(started_at)s, %(duration_ms)s, %(trace_id)s, %(span_id)s,
    %(error)s, %(input_tokens)s, %(output_tokens)s
)

-- name: summarize
-- Latencies, errors and tokens of a run by agent.
select
    agent,
    tier::text as tier,
    count(*) as steps,
    count(*) filter (where status <> 'success') as errors,
    avg(duration_ms) as avg_ms,
    percentile_cont(0.50) within group (order by duration_ms) as p50_ms,
    percentile_cont(0.95) within group (order by duration_ms) as p95_ms,
    percentile_cont(0.99) within group (order by duration_ms) as p99_ms,
    coalesce(sum(input_tokens), 0) as input_tokens,
    coalesce(sum(output_tokens), 0) as output_tokens
from agent_steps
where run_id = %(run_id)s
group by tier, agent
order by agent_steps.tier, agent

-- name: recent
-- The newest runs; one whose process is gone is interrupted: nobody holds the lock on its fingerprint.
select
    run_id,
    study,
    fingerprint,
    case
        when status = 'running' and not exists (
            select from pg_locks
            where locktype = 'advisory' and granted and objsubid = 1
                and database = (select oid from pg_database where datname = current_database())
                and (classid::bigint << 32) | objid::bigint = hashtextextended('e2i.study_runs.' || fingerprint, 0)
        ) then 'interrupted'
        else status
    end as status,
    experiment_id,
    trace_id,
    started_at,
    finished_at,
    report_path,
    error
from study_runs
order by started_at desc, run_id
limit %(limit)s
