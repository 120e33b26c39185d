ALTER TABLE ingest_job
    DROP COLUMN warnings,
    DROP COLUMN cancelled_at;
ALTER TABLE ingest_batch
    DROP COLUMN loaded_until_us,
    DROP COLUMN chunk_limit;
