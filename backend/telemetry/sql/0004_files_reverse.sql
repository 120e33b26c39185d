ALTER TABLE ingest_batch ADD COLUMN path text;
UPDATE ingest_batch batch
SET path = file.location,
    slice = slice || jsonb_build_object('stamp', jsonb_build_object('size', size_bytes, 'mtime_ns', mtime_ns))
FROM ingest_file file
WHERE file.id = file_id;
ALTER TABLE ingest_batch ALTER COLUMN path SET NOT NULL, DROP COLUMN file_id;
DROP TABLE ingest_file;
