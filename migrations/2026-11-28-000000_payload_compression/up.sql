-- Rows of more than 2 KB have their bodies compressed: by lz4 where the server was built with it, as those of the distributions are.
-- This is for partitions that are made from now on; the same ALTER of one that is there would be for what is still to come into it.
-- Whoever waits for a table keeps out everybody who comes later: not for long. It is tried again.
SET LOCAL lock_timeout = '2s';
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE order_events ALTER COLUMN payload SET COMPRESSION lz4;
        ALTER TABLE dispute_events ALTER COLUMN payload SET COMPRESSION lz4;
    END IF;
END $$;
