-- How a job's files are written, where that differs from the default: separators, encoding, times.
ALTER TABLE ingest_job ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
