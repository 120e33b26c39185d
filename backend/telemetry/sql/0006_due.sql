-- The time of a batch's next attempt, the time since which its attempts are interrupted for temporary reasons, and the time
-- when its message was last sent. Unsent batches are sent by the worker, some at a time, so that the queue stays short.
ALTER TABLE ingest_batch
    ADD COLUMN due_at        timestamptz,
    ADD COLUMN failing_since timestamptz,
    ADD COLUMN sent_at       timestamptz;
UPDATE ingest_batch SET due_at = enqueued_at, sent_at = enqueued_at;
ALTER TABLE ingest_batch ALTER COLUMN due_at SET NOT NULL;
DROP INDEX ingest_batch_unfinished;
CREATE INDEX ingest_batch_unfinished ON ingest_batch (due_at) WHERE state = 'queued';
CREATE INDEX ingest_batch_unsent ON ingest_batch (job_id, id) WHERE state = 'queued' AND sent_at IS NULL;
CREATE INDEX ingest_batch_sent ON ingest_batch (job_id) WHERE state = 'queued' AND sent_at IS NOT NULL;
CREATE INDEX ingest_batch_finished ON ingest_batch (finished_at);

-- Set while a job has unsent batches: the time when some of its batches were last sent.
ALTER TABLE ingest_job ADD COLUMN unsent_since timestamptz;
CREATE INDEX ingest_job_unsent ON ingest_job (unsent_since) WHERE unsent_since IS NOT NULL;
