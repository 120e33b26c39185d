"""The columns of telemetry/sql/0008_chunks.sql."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models

from telemetry.sql import read_sql

STATE = [
    migrations.AddField(
        "ingestbatch",
        "loaded_until_us",
        models.BigIntegerField(
            blank=True,
            help_text="readings before this time, in microseconds since 1970, are loaded; null: loaded at once",
            null=True,
        ),
    ),
    migrations.AddField(
        "ingestbatch",
        "chunk_limit",
        models.IntegerField(
            blank=True,
            help_text="chunks per transaction, set after the server ran out of locks; null: default",
            null=True,
        ),
    ),
    migrations.AddField("ingestjob", "warnings", ArrayField(models.TextField(), blank=True, default=list)),
    migrations.AddField("ingestjob", "cancelled_at", models.DateTimeField(blank=True, null=True)),
]


class Migration(migrations.Migration):
    """Run the SQL."""

    dependencies = [("telemetry", "0007_rounded")]
    operations = [migrations.RunSQL(read_sql("0008_chunks"), read_sql("0008_chunks_reverse"), state_operations=STATE)]
