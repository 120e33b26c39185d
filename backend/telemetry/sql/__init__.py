"""The SQL of the migrations."""

from pathlib import Path


def read_sql(name: str) -> str:
    """Return the SQL in the file of this name, without its ending, in this folder."""
    return (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8")
