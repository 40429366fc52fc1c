-- name: create_database
-- The database of the embedded server, made in single-user mode.
create database e2i

-- name: cluster_name
-- Which server is this?
select current_setting('cluster_name')
