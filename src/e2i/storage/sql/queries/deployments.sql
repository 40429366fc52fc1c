-- name: save
-- A deployment as it is decided, or the new status of one that is there; deployed_at is set when it serves.
insert into ml_deployments (model_registry_id, deployment_name, environment, status, deployed_by, deployment_config, deployed_at)
values (
    %(registry_id)s::uuid, %(name)s, %(environment)s, %(status)s::deployment_status_enum, %(deployed_by)s, %(config)s,
    case when %(status)s::deployment_status_enum = 'active' then now() end
)
on conflict (model_registry_id, deployment_name, environment) where deactivated_at is null do update set
    status = excluded.status,
    deployed_by = excluded.deployed_by,
    deployment_config = excluded.deployment_config,
    deployed_at = coalesce(ml_deployments.deployed_at, excluded.deployed_at)
returning id::text as id
