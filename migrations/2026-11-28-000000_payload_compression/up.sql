-- Bodies of 2 KB and more are compressed: by lz4 where the server was built with it, as those of the distributions are. A server
-- without it goes on with pglz.
-- Whoever waits for a table keeps out everybody who comes later: not for long. It is tried again.
SET LOCAL lock_timeout = '2s';
DO $$
DECLARE
    events regclass;
BEGIN
    -- A parent's setting is for the partitions that are still to be made.
    FOR events IN
        SELECT relid FROM pg_partition_tree('order_events')
        UNION ALL
        SELECT relid FROM pg_partition_tree('dispute_events')
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN payload SET COMPRESSION lz4', events);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;
