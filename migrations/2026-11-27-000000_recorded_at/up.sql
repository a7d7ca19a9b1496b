-- COPY inserts the rows of a page at once, by one record of the write-ahead log, only where no default is volatile, as
-- clock_timestamp() is. now() is when the transaction began that wrote the row.
ALTER TABLE order_events ALTER COLUMN recorded_at SET DEFAULT now();
ALTER TABLE dispute_events ALTER COLUMN recorded_at SET DEFAULT now();
