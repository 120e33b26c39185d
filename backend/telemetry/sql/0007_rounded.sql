-- Readings that have the same time as another after rounding to microseconds, the resolution of timestamptz.
ALTER TABLE ingest_batch
    ADD COLUMN rounded_count bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT ingest_batch_adds_up,
    ADD CONSTRAINT ingest_batch_adds_up
        CHECK (cell_count = inserted_count + updated_count + skipped_count + rounded_count + empty_count);
