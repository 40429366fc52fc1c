-- name: server
-- Version of the server, and whether pgvector is installed or can be.
select
    current_setting('server_version_num')::integer as version,
    exists (select from pg_extension where extname = 'vector')
        or exists (select from pg_available_extensions where name = 'vector') as has_vector

-- name: lock
-- One migrator at a time; ends with the transaction.
select pg_advisory_xact_lock(hashtextextended('e2i.schema_migrations', 0))

-- name: is_new
-- Has no migration been applied yet?
select to_regclass('public.schema_migrations') is null as is_new

-- name: applied
-- Everything that was applied, in order.
select version, name, sha256 from public.schema_migrations order by version

-- name: record
-- Note a migration in its own transaction.
insert into public.schema_migrations (version, name, sha256) values (%(version)s, %(name)s, %(sha256)s)
