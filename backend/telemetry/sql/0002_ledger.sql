-- What to do with readings that exist already.
ALTER TABLE ingest_job
    ADD COLUMN on_conflict text NOT NULL DEFAULT 'ignore'
        CONSTRAINT ingest_job_on_conflict_known CHECK (on_conflict IN ('ignore', 'update', 'error'));

-- The number of attempts, so that a batch that kills its worker is not tried for ever; and the result of each cell of its
-- rows, so that the sum reveals any loss.
ALTER TABLE ingest_batch
    DROP CONSTRAINT ingest_batch_state_known,
    ADD COLUMN attempts      integer NOT NULL DEFAULT 0,
    ADD COLUMN cell_count    bigint  NOT NULL DEFAULT 0,
    ADD COLUMN updated_count bigint  NOT NULL DEFAULT 0,
    ADD COLUMN empty_count   bigint  NOT NULL DEFAULT 0;
UPDATE ingest_batch SET state = 'parked' WHERE state = 'failed';
UPDATE ingest_batch SET cell_count = inserted_count + skipped_count WHERE state = 'done';
ALTER TABLE ingest_batch
    ADD CONSTRAINT ingest_batch_state_known CHECK (state IN ('queued', 'done', 'parked', 'cancelled')),
    ADD CONSTRAINT ingest_batch_adds_up CHECK (cell_count = inserted_count + updated_count + skipped_count + empty_count);
