//! All SQL of the dispute tables.

/// Writes a batch of dispute events; see [`crate::write`]. Parameters as those of the orders'.
pub(crate) const WRITE: &str = "\
WITH fence AS (
    UPDATE consumer_offsets o SET next_offset = v.next, updated_at = now()
    FROM unnest($2, $3, $4, $5) AS v (partition, start, next, epoch)
    WHERE o.topic = $1 AND o.partition = v.partition AND o.next_offset = v.start AND o.epoch = v.epoch
    RETURNING o.partition
), log AS (
    INSERT INTO dispute_events (event_id, source, order_id, dispute_id, user_id, event_type, status, provider_status,
        amount_minor, currency, entity_version, occurred_at, received_at, payload, kafka_partition, kafka_offset)
    SELECT u.event_id, u.source, u.order_id, u.dispute_id, u.user_id, u.event_type, u.status, u.provider_status,
        u.amount_minor, u.currency, u.entity_version, u.occurred_at, u.received_at, u.payload, u.partition, u.\"offset\"
    FROM unnest($6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) AS u (partition, \"offset\",
        event_id, source, order_id, dispute_id, user_id, event_type, status, provider_status, amount_minor, currency,
        entity_version, occurred_at, received_at, payload)
    JOIN fence USING (partition)
    ON CONFLICT DO NOTHING
), state AS (
    INSERT INTO disputes AS s (source, dispute_id, order_id, user_id, status, provider_status, amount_minor, currency,
        entity_version, occurred_at, status_rank, last_event_id, kafka_partition)
    SELECT u.source, u.dispute_id, u.order_id, u.user_id, u.status, u.provider_status, u.amount_minor, u.currency,
        u.entity_version, u.occurred_at, u.status_rank, u.event_id, u.partition
    FROM unnest($6, $8, $9, $10, $11, $12, $14, $15, $16, $17, $18, $19, $22, $23) AS u (partition, event_id, source,
        order_id, dispute_id, user_id, status, provider_status, amount_minor, currency, entity_version, occurred_at,
        status_rank, latest)
    JOIN fence USING (partition)
    WHERE u.latest
    ON CONFLICT (source, dispute_id) DO UPDATE SET
        order_id = excluded.order_id, user_id = excluded.user_id, status = excluded.status,
        provider_status = excluded.provider_status, amount_minor = excluded.amount_minor, currency = excluded.currency,
        entity_version = excluded.entity_version, occurred_at = excluded.occurred_at,
        status_rank = excluded.status_rank, last_event_id = excluded.last_event_id,
        kafka_partition = excluded.kafka_partition, updated_at = now()
    WHERE (coalesce(excluded.entity_version, -1), excluded.occurred_at, excluded.status_rank, excluded.last_event_id)
        > (coalesce(s.entity_version, -1), s.occurred_at, s.status_rank, s.last_event_id)
)
SELECT partition FROM fence";
