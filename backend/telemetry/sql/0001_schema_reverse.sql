DROP TABLE ingest_reject, ingest_batch, ingest_job, reading, series;
