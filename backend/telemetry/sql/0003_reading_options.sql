-- The format options of a job's files: delimiter, encoding, times.
ALTER TABLE ingest_job ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
