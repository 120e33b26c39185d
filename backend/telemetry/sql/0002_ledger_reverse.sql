ALTER TABLE ingest_batch
    DROP CONSTRAINT ingest_batch_adds_up,
    DROP CONSTRAINT ingest_batch_state_known,
    DROP COLUMN attempts,
    DROP COLUMN cell_count,
    DROP COLUMN updated_count,
    DROP COLUMN empty_count;
UPDATE ingest_batch SET state = 'failed' WHERE state IN ('parked', 'cancelled');
ALTER TABLE ingest_batch
    ADD CONSTRAINT ingest_batch_state_known CHECK (state IN ('queued', 'done', 'failed'));
ALTER TABLE ingest_job DROP COLUMN on_conflict;
