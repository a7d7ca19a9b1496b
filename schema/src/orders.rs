//! All SQL of the order tables.

use crate::write::{EventSql, fence, fenced_before};

/// Arrays are unnested in the select list: functions in FROM would each keep all their rows aside first. The log and the
/// state have arrays of their own, as not every row is for both.
macro_rules! statement {
    ($fence:expr) => {
        concat!(
            "WITH fence AS (
    ",
            $fence,
            "
), log AS (
    INSERT INTO order_events (kafka_partition, kafka_offset, event_id, source, order_id, user_id, event_type, status,
        provider_status, amount_minor, currency, entity_version, occurred_at, received_at, payload)
    SELECT * FROM (SELECT unnest($6) AS partition, unnest($7), unnest($8), unnest($9), unnest($10), unnest($12),
        unnest($13), unnest($14), unnest($15), unnest($16), unnest($17), unnest($18), unnest($19), unnest($20),
        unnest($21)) u
    WHERE u.partition = ANY (ARRAY(SELECT partition FROM fence))
    ON CONFLICT DO NOTHING
), state AS (
    INSERT INTO orders AS s (kafka_partition, last_event_id, source, order_id, user_id, status, provider_status,
        amount_minor, currency, entity_version, occurred_at, status_rank)
    SELECT * FROM (SELECT unnest($22) AS partition, unnest($23), unnest($24), unnest($25), unnest($27), unnest($28),
        unnest($29), unnest($30), unnest($31), unnest($32), unnest($33), unnest($34)) u
    WHERE u.partition = ANY (ARRAY(SELECT partition FROM fence))
    ON CONFLICT (source, order_id) DO UPDATE SET
        user_id = excluded.user_id, status = excluded.status, provider_status = excluded.provider_status,
        amount_minor = excluded.amount_minor, currency = excluded.currency, entity_version = excluded.entity_version,
        occurred_at = excluded.occurred_at, status_rank = excluded.status_rank, last_event_id = excluded.last_event_id,
        kafka_partition = excluded.kafka_partition, updated_at = now()
    WHERE (coalesce(excluded.entity_version, -1), excluded.occurred_at, excluded.status_rank, excluded.last_event_id)
        > (coalesce(s.entity_version, -1), s.occurred_at, s.status_rank, s.last_event_id)
)
SELECT partition FROM fence"
        )
    };
}

/// Writing order events; see [`crate::write`].
pub(crate) static SQL: EventSql = EventSql {
    write: statement!(fence!()),
    write_fenced: statement!(fenced_before!()),
    copy: "COPY order_events (kafka_partition, kafka_offset, event_id, source, order_id, user_id, event_type, status,
        provider_status, amount_minor, currency, entity_version, occurred_at, received_at, payload) FROM STDIN BINARY",
    copies_dispute_id: false,
};
