-- name: lock_key
-- Messages of one key get their numbers in the order in which they are committed; ends with the transaction.
select pg_advisory_xact_lock(hashtextextended('e2i.outbox.' || %(target)s || '.' || %(key)s, 0))

-- name: append
-- One message.
insert into outbox (target, key, operation, payload)
values (%(target)s, %(key)s, %(operation)s, %(payload)s)
returning message_id

-- name: pending
-- Undelivered messages, oldest first; behind a message that has failed, its key waits.
select message_id, target, key, operation, payload, attempts, error, created_at
from outbox m
where target = %(target)s and status = 'pending' and (%(key)s::text is null or key = %(key)s)
    and not exists (
        select from outbox earlier
        where earlier.target = m.target and earlier.key = m.key and earlier.message_id < m.message_id
            and earlier.status = 'pending' and earlier.attempts > 0
    )
order by message_id
limit %(limit)s

-- name: mark_delivered
-- The foreign system has confirmed; said twice, the first result stays.
update outbox set
    status = 'delivered',
    result = case when status = 'delivered' then result else %(result)s end,
    error = null,
    delivered_at = coalesce(delivered_at, now())
where message_id = %(message_id)s
returning message_id

-- name: mark_failed
-- Count an attempt that failed; a delivered message stays delivered.
update outbox set
    attempts = attempts + 1,
    error = %(error)s,
    status = case when status = 'pending' and %(quarantine)s then 'quarantined' else status end
where message_id = %(message_id)s
returning message_id

-- name: results
-- Results of the delivered messages of a key, oldest first.
select result from outbox
where target = %(target)s and key = %(key)s and status = 'delivered' and result is not null
order by message_id

-- name: counts
-- How many messages of a target are in which state.
select
    count(*) filter (where status = 'pending') as pending,
    count(*) filter (where status = 'delivered') as delivered,
    count(*) filter (where status = 'quarantined') as quarantined
from outbox
where target = %(target)s
