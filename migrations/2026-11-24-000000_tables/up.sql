-- Ids compare bytewise (COLLATE "C"): a linguistic order costs 13 % and means nothing for ids.

-- The truth about progress: rows and next_offset are committed by one statement, fenced by epoch.
CREATE TABLE consumer_offsets (
    topic       text COLLATE "C" NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    epoch       bigint NOT NULL DEFAULT 0,
    owner       text,
    topic_id    text,
    halted      text,
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
COMMENT ON COLUMN consumer_offsets.next_offset IS 'first offset of the Kafka partition that is not in the tables';
COMMENT ON COLUMN consumer_offsets.topic_id IS 'the Kafka topic that next_offset is of; a topic made anew under the same name has another';
COMMENT ON COLUMN consumer_offsets.halted IS 'why nobody may read the partition, until an operator sets it to NULL again';
COMMENT ON COLUMN consumer_offsets.epoch IS 'raised by every claim; a writer of an older epoch is fenced';

CREATE TABLE orders (
    source          text COLLATE "C" NOT NULL,
    order_id        text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    status          text NOT NULL,
    provider_status text,
    amount_minor    bigint,
    currency        text,
    entity_version  bigint,
    occurred_at     timestamptz NOT NULL,
    status_rank     smallint NOT NULL,
    last_event_id   text COLLATE "C" NOT NULL,
    kafka_partition integer NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, order_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE orders IS 'latest state by (entity_version, occurred_at, status_rank, last_event_id)';

CREATE TABLE disputes (
    source          text COLLATE "C" NOT NULL,
    dispute_id      text COLLATE "C" NOT NULL,
    order_id        text COLLATE "C",
    user_id         text COLLATE "C" NOT NULL,
    status          text NOT NULL,
    provider_status text,
    amount_minor    bigint,
    currency        text,
    entity_version  bigint,
    occurred_at     timestamptz NOT NULL,
    status_rank     smallint NOT NULL,
    last_event_id   text COLLATE "C" NOT NULL,
    kafka_partition integer NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, dispute_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE disputes IS 'latest state by (entity_version, occurred_at, status_rank, last_event_id)';

-- Append-only. The key begins with event_id, so a look-up needs no second index, and a redelivery meets it:
-- occurred_at comes from what the provider signed and repeats. payload is json, not jsonb: the provider's bytes stay exact.
CREATE TABLE order_events (
    event_id        text COLLATE "C" NOT NULL,
    source          text COLLATE "C" NOT NULL,
    order_id        text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    event_type      text NOT NULL,
    status          text NOT NULL,
    provider_status text,
    amount_minor    bigint,
    currency        text,
    entity_version  bigint,
    occurred_at     timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    payload         json NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, source, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX order_events_by_order ON order_events (source, order_id, occurred_at);

CREATE TABLE dispute_events (
    event_id        text COLLATE "C" NOT NULL,
    source          text COLLATE "C" NOT NULL,
    order_id        text COLLATE "C",
    dispute_id      text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    event_type      text NOT NULL,
    status          text NOT NULL,
    provider_status text,
    amount_minor    bigint,
    currency        text,
    entity_version  bigint,
    occurred_at     timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    payload         json NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, source, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX dispute_events_by_dispute ON dispute_events (source, dispute_id, occurred_at);

-- Records that can never be written, byte for byte, by their origin.
CREATE TABLE dead_letters (
    topic            text COLLATE "C" NOT NULL,
    partition        integer NOT NULL,
    "offset"         bigint NOT NULL,
    origin_timestamp timestamptz,
    key              bytea,
    value            bytea,
    headers          json NOT NULL,
    stage            text NOT NULL,
    error_class      text NOT NULL,
    sqlstate         text,
    reason           text NOT NULL,
    attempts         integer NOT NULL,
    first_failed_at  timestamptz NOT NULL,
    last_failed_at   timestamptz NOT NULL,
    redrive_count    integer NOT NULL,
    status           text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'redriven', 'discarded')),
    recorded_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX dead_letters_open ON dead_letters (recorded_at) WHERE status = 'open';

-- What this database is: which shard of how many, of which Kafka cluster, for topics of which partition counts.
CREATE TABLE shard_identity (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    shard_index integer NOT NULL,
    shards      integer NOT NULL,
    cluster_id  text NOT NULL,
    topics      jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
