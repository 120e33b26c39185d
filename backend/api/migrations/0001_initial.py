"""The tables of API tokens and of uploads with an Idempotency-Key."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the tables."""

    initial = True

    dependencies = [
        ("telemetry", "0005_rejects"),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiToken",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.TextField(help_text="name of the token's owner")),
                ("digest", models.BinaryField(help_text="SHA-256 of the token", max_length=32, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("revoked_at", None)), fields=("name",), name="api_token_one_valid_per_name"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="KeyedUpload",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.TextField()),
                (
                    "fingerprint",
                    models.BinaryField(
                        help_text="SHA-256 of the query string, the content headers and the body", max_length=32
                    ),
                ),
                ("job", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="telemetry.ingestjob")),
                (
                    "token",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="api.apitoken"),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("token", "key"), name="api_keyed_upload_unique")],
            },
        ),
    ]
