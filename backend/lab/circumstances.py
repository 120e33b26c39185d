"""What a result depends on: the command, the machine and the versions."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.db import connection

LIBRARIES = (
    "django",
    "django-db-connection-pool",
    "celery",
    "redis",
    "gunicorn",
    "uvicorn",
    "gevent",
    "psycopg2-binary",
    "psycopg",
    "psycopg-pool",
    "sqlalchemy",
    "pyarrow",
    "pgpq",
)


def circumstances() -> dict[str, Any]:
    """Return them as JSON data; the database server must run."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT version(), extversion FROM pg_extension WHERE extname = 'timescaledb'")
        postgresql, timescaledb = cursor.fetchone()
    connection.close()  # only what is measured may have connections
    return {
        "command": " ".join(["scripts/bench", *sys.argv[1:]]),
        "machine": {"processors": len(_processors()), "model": _processors()[0], "memory_mib": _memory_mib()},
        "versions": {
            "python": platform.python_version(),
            "linux": platform.release(),
            "postgresql": postgresql.split()[1],
            "timescaledb": timescaledb,
            **{name: version(name) for name in LIBRARIES},
        },
    }


def _processors() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]


def _memory_mib() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1]) // 1024
