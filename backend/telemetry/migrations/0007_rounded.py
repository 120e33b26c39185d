"""The column of telemetry/sql/0007_rounded.sql."""

from django.db import migrations, models

from telemetry.sql import read_sql


class Migration(migrations.Migration):
    """Run the SQL."""

    dependencies = [("telemetry", "0006_due")]
    operations = [
        migrations.RunSQL(
            read_sql("0007_rounded"),
            read_sql("0007_rounded_reverse"),
            state_operations=[
                migrations.AddField(
                    "ingestbatch",
                    "rounded_count",
                    models.BigIntegerField(
                        default=0,
                        help_text="readings whose time equals another's after rounding to microseconds",
                    ),
                )
            ],
        ),
    ]
