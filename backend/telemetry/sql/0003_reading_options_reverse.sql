ALTER TABLE ingest_job DROP COLUMN options;
