"""The table of files of telemetry/sql/0004_files.sql; before, each batch had the path of its file."""

import django.db.models.deletion
from django.db import migrations, models

from telemetry.sql import read_sql

STATE = [
    migrations.CreateModel(
        name="IngestFile",
        fields=[
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            (
                "job",
                models.ForeignKey(
                    db_index=False,
                    on_delete=django.db.models.deletion.CASCADE,
                    related_name="files",
                    to="telemetry.ingestjob",
                ),
            ),
            ("name", models.TextField(help_text="name that its sender uses")),
            (
                "location",
                models.TextField(help_text="where workers read it: a path, a URL, or a name in the spool"),
            ),
            ("size_bytes", models.BigIntegerField()),
            ("mtime_ns", models.BigIntegerField(help_text="time of its last change, in nanoseconds since 1970")),
        ],
        options={
            "db_table": "ingest_file",
            "indexes": [models.Index(fields=["location"], name="ingest_file_location")],
            "constraints": [models.UniqueConstraint(fields=("job", "id"), name="ingest_file_of_job")],
        },
    ),
    migrations.RemoveField("ingestbatch", "path"),
    migrations.AddField(
        "ingestbatch",
        "file",
        models.ForeignKey(
            db_index=False,
            on_delete=django.db.models.deletion.CASCADE,
            related_name="batches",
            to="telemetry.ingestfile",
        ),
        preserve_default=False,
    ),
    migrations.AddIndex("ingestbatch", models.Index(fields=["file"], name="ingest_batch_of_file")),
]


class Migration(migrations.Migration):
    """Run the SQL."""

    dependencies = [("telemetry", "0003_reading_options")]
    operations = [
        migrations.RunSQL(read_sql("0004_files"), read_sql("0004_files_reverse"), state_operations=STATE),
    ]
