ALTER TABLE order_events ALTER COLUMN recorded_at SET DEFAULT clock_timestamp();
ALTER TABLE dispute_events ALTER COLUMN recorded_at SET DEFAULT clock_timestamp();
