-- A batch that touches more chunks than one transaction may is loaded in several, in order of time: what lies before
-- this time (microseconds since 1970) is loaded. A batch after whose load the server ran out of locks gets fewer chunks.
ALTER TABLE ingest_batch
    ADD COLUMN loaded_until_us bigint,
    ADD COLUMN chunk_limit     integer CONSTRAINT ingest_batch_chunk_limit CHECK (chunk_limit > 0);

-- What the sender of a job should know though it can be loaded; and when somebody asked to stop it.
ALTER TABLE ingest_job
    ADD COLUMN warnings     text[] NOT NULL DEFAULT '{}',
    ADD COLUMN cancelled_at timestamptz;
