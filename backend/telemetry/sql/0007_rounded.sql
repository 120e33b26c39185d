-- Readings whose time is that of another once it is cut to microseconds, which is what a timestamptz holds.
ALTER TABLE ingest_batch
    ADD COLUMN rounded_count bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT ingest_batch_adds_up,
    ADD CONSTRAINT ingest_batch_adds_up
        CHECK (cell_count = inserted_count + updated_count + skipped_count + rounded_count + empty_count);
