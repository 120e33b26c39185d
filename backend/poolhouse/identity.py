"""The identity of this process as PostgreSQL shows it: `service@host:pid`, then the project's own application_name."""

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
    """The identity of a process."""

    service: str
    host: str
    pid: int

    @property
    def name(self) -> str:
        """The process's application_name, at most 63 bytes; a long host name is shortened, never the pid."""
        room = APPLICATION_NAME_MAX_BYTES - len(f"{self.service}@:{self.pid}")
        return f"{self.service}@{_shortened(self.host, room)}:{self.pid}"


def _shortened(host: str, room: int) -> str:
    """Keep the beginning, and a digest of the whole: the host names of a deployment often differ at their ends."""
    if len(host) <= room:
        return host
    digest = hashlib.sha256(host.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{host[: room - DIGEST_LENGTH - 1]}~{digest}"


def current(service: str | None = None) -> Identity:
    """Return this process' identity. It is never cached, since it changes with a fork."""
    host = socket.gethostname().encode("ascii", "replace").decode()
    return Identity(service or options().SERVICE or started.service(), host, os.getpid())


def label_connections() -> None:
    """Label each connection that this process opens from now on with its identity, as application_name.

    The project's own application_name follows after a blank, as far as there is room. Django reads the parameters when
    it opens a connection, so this must be called again after a fork.
    """
    for database in connections.settings.values():
        if is_postgresql(database["ENGINE"]):
            given = database.setdefault("OPTIONS", {}).get("application_name", "")
            own = _own_names.get(given, given)
            label = f"{current().name} {own}".encode("ascii", "replace").decode()[:APPLICATION_NAME_MAX_BYTES].rstrip()
            _own_names[label] = own
            database["OPTIONS"]["application_name"] = label


# By the label derived from it: in a forked child, the settings have the parent's labels.
_own_names: dict[str, str] = {}


def process_of(application: str) -> str:
    """Return the name of the process in a connection's application_name."""
    return application.partition(" ")[0]
