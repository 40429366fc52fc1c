-- name: lock
-- One writer of the chain at a time; ends with the transaction.
select pg_advisory_xact_lock(hashtextextended('e2i.audit_log', 0))

-- name: last
-- The end of the chain.
select sequence, entry_hash from audit_log order by sequence desc limit 1

-- name: hash_at
-- Hash of one entry.
select entry_hash from audit_log where sequence = %(sequence)s

-- name: append
-- One link.
insert into audit_log (sequence, occurred_at, actor, action, subject, details, previous_hash, entry_hash)
values (
    %(sequence)s, %(occurred_at)s, %(actor)s, %(action)s, %(subject)s, %(details)s::text::json, %(previous_hash)s, %(entry_hash)s
)

-- name: walk
-- The whole chain in order; details as the exact text.
select sequence, occurred_at, actor, action, subject, details::text as details, previous_hash, entry_hash
from audit_log
order by sequence
