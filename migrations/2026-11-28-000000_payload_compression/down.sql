SET LOCAL lock_timeout = '2s';
DO $$
DECLARE
    events regclass;
BEGIN
    FOR events IN
        SELECT relid FROM pg_partition_tree('order_events')
        UNION ALL
        SELECT relid FROM pg_partition_tree('dispute_events')
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN payload SET COMPRESSION default', events);
    END LOOP;
END $$;
