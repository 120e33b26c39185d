"""Who this process is, in the words that PostgreSQL shows: `service@host:pid`, and the project's own if it has any."""

import hashlib
import os
import socket
from dataclasses import dataclass

from django.db import connections

from poolhouse import started
from poolhouse.backends import is_postgresql
from poolhouse.conf import options

# NAMEDATALEN - 1: PostgreSQL cuts application_name there, and the pid stands at its end.
APPLICATION_NAME_MAX_BYTES = 63
DIGEST_LENGTH = 6


@dataclass(frozen=True)
class Identity:
    """A process of the fleet."""

    service: str
    host: str
    pid: int

    @property
    def name(self) -> str:
        """The process's application_name, at most 63 bytes; a long host name is shortened, never the pid."""
        room = APPLICATION_NAME_MAX_BYTES - len(f"{self.service}@:{self.pid}")
        return f"{self.service}@{_shortened(self.host, room)}:{self.pid}"


def _shortened(host: str, room: int) -> str:
    """Keep the beginning, for people, and a digest of the whole: hosts of one deployment differ at their ends."""
    if len(host) <= room:
        return host
    digest = hashlib.sha256(host.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{host[: room - DIGEST_LENGTH - 1]}~{digest}"


def current(service: str | None = None) -> Identity:
    """Identify this process now; after a fork the answer differs, so it is never cached."""
    host = socket.gethostname().encode("ascii", "replace").decode()
    return Identity(service or options().SERVICE or started.service(), host, os.getpid())


def label_connections() -> None:
    """Make every connection that this process opens from now on carry its identity as application_name.

    What a project has put there itself follows after a blank, as far as there is room. Django reads the parameters of a
    connection when it opens one, so this must be called again after a fork.
    """
    for database in connections.settings.values():
        if is_postgresql(database["ENGINE"]):
            given = database.setdefault("OPTIONS", {}).get("application_name", "")
            own = _own_names.get(given, given)
            label = f"{current().name} {own}".encode("ascii", "replace").decode()[:APPLICATION_NAME_MAX_BYTES].rstrip()
            _own_names[label] = own
            database["OPTIONS"]["application_name"] = label


# By the label that was made of it: in a forked child, the settings have the parent's labels.
_own_names: dict[str, str] = {}


def process_of(application: str) -> str:
    """Give the name of the process that has labelled a connection, by the connection's application_name."""
    return application.partition(" ")[0]
