"""The schema, as SQL that migrations name."""

from pathlib import Path


def read_sql(name: str) -> str:
    """Give the text of a file in this folder, named without its ending."""
    return (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8")
