-- A batch that touches more chunks than one transaction may is loaded in several transactions, in order of time: readings
-- before loaded_until_us (microseconds since 1970) are loaded. chunk_limit is set after the server ran out of locks.
ALTER TABLE ingest_batch
    ADD COLUMN loaded_until_us bigint,
    ADD COLUMN chunk_limit     integer CONSTRAINT ingest_batch_chunk_limit CHECK (chunk_limit > 0);

-- Warnings for the sender of a job that can be loaded; and the time when the job was cancelled.
ALTER TABLE ingest_job
    ADD COLUMN warnings     text[] NOT NULL DEFAULT '{}',
    ADD COLUMN cancelled_at timestamptz;
