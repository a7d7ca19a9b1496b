ALTER TABLE order_events ALTER COLUMN payload SET COMPRESSION default;
ALTER TABLE dispute_events ALTER COLUMN payload SET COMPRESSION default;
