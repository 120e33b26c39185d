"""The lab's comparison of long statements measures every one of them on both engines."""

from typing import Any

import pytest

from lab import long_statements


@pytest.fixture(autouse=True)
def _database(django_db_setup: None, django_db_blocker: Any) -> Any:
    with django_db_blocker.unblock():
        yield


def test_every_statement_is_measured_on_both_engines() -> None:
    found = long_statements.compare(rounds=1)
    assert len(found) == len(long_statements.SIZES_BYTES) * len(long_statements.statements(1 << 10))
    for took in found.values():
        assert took.keys() == {"standard_ms", "poolhouse_ms", "ratio"}
        assert min(took.values()) > 0
