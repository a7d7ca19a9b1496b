//! The tables that are read through diesel, in the form of `diesel print-schema`.

diesel::table! {
    consumer_offsets (topic, partition) {
        topic -> Text,
        partition -> Int4,
        next_offset -> Int8,
        epoch -> Int8,
        owner -> Nullable<Text>,
        topic_id -> Nullable<Text>,
        halted -> Nullable<Text>,
        claimed_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    shard_identity (only_row) {
        only_row -> Bool,
        shard_index -> Int4,
        shards -> Int4,
        cluster_id -> Text,
        topics -> Jsonb,
        recorded_at -> Timestamptz,
    }
}
