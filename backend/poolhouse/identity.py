"""Who this process is, in the words that PostgreSQL shows: `service@host:pid`."""

import os
import socket
from dataclasses import dataclass

from django.db import connections

from poolhouse.conf import options

# NAMEDATALEN - 1: PostgreSQL cuts application_name there, and the pid stands at its end.
APPLICATION_NAME_MAX_BYTES = 63


@dataclass(frozen=True)
class Identity:
    """A process of the fleet."""

    service: str
    host: str
    pid: int

    @property
    def name(self) -> str:
        """The process's application_name, at most 63 bytes; a long host name is cut, never the pid."""
        room = APPLICATION_NAME_MAX_BYTES - len(f"{self.service}@:{self.pid}")
        return f"{self.service}@{self.host[: max(0, room)]}:{self.pid}"


def current(service: str | None = None) -> Identity:
    """Identify this process now; after a fork the answer differs, so it is never cached."""
    host = socket.gethostname().encode("ascii", "replace").decode()
    return Identity(service or options().SERVICE, host, os.getpid())


def label_connections() -> None:
    """Make every connection that this process opens from now on carry its identity as application_name.

    Django reads the parameters of a connection when it opens one, so this must be called again after a fork.
    """
    for database in connections.settings.values():
        if is_postgresql(database["ENGINE"]):
            database.setdefault("OPTIONS", {})["application_name"] = current().name


def is_postgresql(engine: str) -> bool:
    """Say whether a database engine, by its dotted path, speaks PostgreSQL."""
    return "postgresql" in engine or "postgis" in engine
