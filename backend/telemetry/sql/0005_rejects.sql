-- Rejected rows are kept in files in the spool, and counted here.
DROP TABLE ingest_reject;
CREATE TABLE ingest_reject_count (
    batch_id    bigint NOT NULL REFERENCES ingest_batch (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    reason      text   NOT NULL,
    column_name text   NOT NULL,
    row_count   bigint NOT NULL CONSTRAINT ingest_reject_count_some CHECK (row_count > 0),
    PRIMARY KEY (batch_id, reason, column_name)
);

-- How many rows of a job may be rejected before the rest of it is parked; null: any number.
ALTER TABLE ingest_job ADD COLUMN max_rejected_count bigint CONSTRAINT ingest_job_max_rejected CHECK (max_rejected_count >= 0);
