ALTER TABLE ingest_job DROP COLUMN unsent_since;
DROP INDEX ingest_batch_finished;
ALTER TABLE ingest_batch
    DROP COLUMN sent_at,
    DROP COLUMN failing_since,
    DROP COLUMN due_at;
CREATE INDEX ingest_batch_unfinished ON ingest_batch (enqueued_at) WHERE state = 'queued';
