-- What is to happen to readings that are there already.
ALTER TABLE ingest_job
    ADD COLUMN on_conflict text NOT NULL DEFAULT 'ignore'
        CONSTRAINT ingest_job_on_conflict_known CHECK (on_conflict IN ('ignore', 'update', 'error'));

-- How often a batch was begun, so that one that takes its worker down does not do so for ever; and what became of each
-- cell of its rows, so that nothing can be lost without the ledger failing to add up.
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
