ALTER TABLE ingest_batch DROP CONSTRAINT ingest_batch_adds_up;
UPDATE ingest_batch SET skipped_count = skipped_count + rounded_count;
ALTER TABLE ingest_batch
    DROP COLUMN rounded_count,
    ADD CONSTRAINT ingest_batch_adds_up CHECK (cell_count = inserted_count + updated_count + skipped_count + empty_count);
