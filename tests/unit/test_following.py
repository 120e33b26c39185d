"""Who gets connections of other engines is noted by a signal, whose receivers every borrower pays for."""

from collections.abc import Iterator

import pytest
from django.db import connections
from django.db.backends.signals import connection_created

from poolhouse.process import pools

OURS = {"ENGINE": "poolhouse.engines.postgresql"}
STANDARD = {"ENGINE": "django.db.backends.postgresql"}


@pytest.fixture
def _unfollowed() -> Iterator[None]:
    """Forget for the length of a test what the app has connected at its start."""
    before, connection_created.receivers = connection_created.receivers, []
    connection_created.sender_receivers_cache.clear()
    yield
    connection_created.receivers = before


@pytest.mark.usefixtures("_unfollowed")
def test_nothing_listens_until_an_alias_has_another_engine_than_this_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    aliases = {"default": OURS}
    monkeypatch.setattr(connections, "settings", aliases)
    pools.follow_connections()
    assert not connection_created.has_listeners()
    aliases["late"] = STANDARD
    pools.follow_connections()
    pools.follow_connections()
    assert len(connection_created.receivers) == 1
