"""The times of attempts and of messages, as telemetry/sql/0006_due.sql adds them."""

from django.db import migrations, models
from django.db.models import Q

from telemetry.sql import read_sql

STATE = [
    migrations.AddField(
        "ingestbatch",
        "due_at",
        models.DateTimeField(help_text="time of the next attempt"),
        preserve_default=False,
    ),
    migrations.AddField(
        "ingestbatch",
        "failing_since",
        models.DateTimeField(
            blank=True, help_text="time of the first of the current interruptions; null: none", null=True
        ),
    ),
    migrations.AddField(
        "ingestbatch",
        "sent_at",
        models.DateTimeField(blank=True, help_text="time when its message was last sent; null: never", null=True),
    ),
    migrations.AddField(
        "ingestjob",
        "unsent_since",
        models.DateTimeField(
            blank=True,
            help_text="time of the last send while batches were never sent; null: all were sent",
            null=True,
        ),
    ),
    migrations.RemoveIndex("ingestbatch", "ingest_batch_unfinished"),
    migrations.AddIndex(
        "ingestbatch",
        models.Index(condition=Q(("state", "queued")), fields=["due_at"], name="ingest_batch_unfinished"),
    ),
    migrations.AddIndex(
        "ingestbatch",
        models.Index(
            condition=Q(("sent_at", None), ("state", "queued")), fields=["job", "id"], name="ingest_batch_unsent"
        ),
    ),
    migrations.AddIndex(
        "ingestbatch",
        models.Index(
            condition=Q(("sent_at__isnull", False), ("state", "queued")), fields=["job"], name="ingest_batch_sent"
        ),
    ),
    migrations.AddIndex("ingestbatch", models.Index(fields=["finished_at"], name="ingest_batch_finished")),
    migrations.AddIndex(
        "ingestjob",
        models.Index(condition=Q(("unsent_since__isnull", False)), fields=["unsent_since"], name="ingest_job_unsent"),
    ),
]


class Migration(migrations.Migration):
    """Run the SQL."""

    dependencies = [("telemetry", "0005_rejects")]
    operations = [migrations.RunSQL(read_sql("0006_due"), read_sql("0006_due_reverse"), state_operations=STATE)]
