"""The schema in SQL agrees with Django's models and the settings."""

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from telemetry.models import Reading

pytestmark = pytest.mark.django_db


def columns_in_database(table: str) -> set[tuple[str, bool]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, is_nullable = 'YES' FROM information_schema.columns WHERE table_name = %s", [table]
        )
        return set(cursor.fetchall())


@pytest.mark.parametrize("model", [*apps.get_app_config("telemetry").get_models()], ids=lambda model: model.__name__)
def test_the_models_and_the_sql_have_the_same_columns(model: type[Reading]) -> None:
    in_django = {(field.column, field.null) for field in model._meta.local_concrete_fields if field.column}
    assert in_django == columns_in_database(model._meta.db_table), (
        f"mend {model.__name__} in telemetry/models.py, or add a migration with its .sql file"
    )


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_reading_is_a_hypertable_whose_key_is_series_and_time() -> None:
    assert "id" not in {name for name, _ in columns_in_database("reading")}
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_name = 'reading'")
        assert cursor.fetchone() == (1,)
        cursor.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'reading_series_time_unique'"
        )
        assert cursor.fetchone() == ('PRIMARY KEY (series_id, "time")',)


def chunk_interval_hours() -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM time_interval) / 3600 FROM timescaledb_information.dimensions "
            "WHERE hypertable_name = 'reading'"
        )
        return float(cursor.fetchone()[0])


def test_the_chunk_interval_is_a_day_unless_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chunk_interval_hours() == 24
    monkeypatch.setattr(settings, "READING_CHUNK_INTERVAL_HOURS", 6)
    call_command("migrate", verbosity=0)
    assert chunk_interval_hours() == 6


def test_a_reading_can_be_read_through_django() -> None:
    with connection.cursor() as cursor:
        cursor.execute("""INSERT INTO series (metric, labels) VALUES ('load', '{"device": "a"}') RETURNING id""")
        (series_id,) = cursor.fetchone()
        cursor.execute("INSERT INTO reading VALUES ('2024-05-01 00:00Z', %s, 1.5)", [series_id])
    reading = Reading.objects.select_related("series").get(series__metric="load")
    assert (reading.value, str(reading.series)) == (1.5, "load{device=a}")
