DROP TABLE shard_identity, dead_letters, dispute_events, order_events, disputes, orders, consumer_offsets;
