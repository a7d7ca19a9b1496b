-- COPY inserts the rows of a page at once, by one record of the write-ahead log, only where no default is volatile, as
-- clock_timestamp() is. now() is when the transaction began that wrote the row.
-- Whoever waits for a table keeps out everybody who comes later: not for long. It is tried again.
SET LOCAL lock_timeout = '2s';
ALTER TABLE order_events ALTER COLUMN recorded_at SET DEFAULT now();
ALTER TABLE dispute_events ALTER COLUMN recorded_at SET DEFAULT now();
