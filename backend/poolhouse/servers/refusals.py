"""Telling a full server or PgBouncer, which refuses connections, from one that is unreachable."""

from poolhouse.conf import options

UNREACHABLE, FULL, POOLER_FULL = "unreachable", "full", "behind a PgBouncer that is full"
# Before a session has begun, neither driver has the SQLSTATE (53300 of a server, 08P01 of PgBouncer), only the text.
_OF_SERVER = (
    "too many clients already",
    "remaining connection slots",
    "too many connections for ",  # a CONNECTION LIMIT of a role or database
)
_OF_PGBOUNCER = (
    "no more connections allowed",  # max_client_conn
    "client connections exceeded",
    "max_client_conn",
    "max_db_client_connections",
    "max_user_client_connections",
    "query_wait_timeout",
)


def state_of(error: BaseException) -> str:
    """Return the state of a source that raised this error, to complete "the source is …"."""
    text = str(error)
    if any(words in text for words in _OF_PGBOUNCER):
        return POOLER_FULL
    return FULL if any(words in text for words in _OF_SERVER) else UNREACHABLE


def direct_remedy(alias: str) -> str:
    """Return what to set if the monitor goes through PgBouncer; empty if DIRECT has the alias."""
    if alias in options().DIRECT:
        return ""
    return f"set POOLHOUSE['DIRECT'] = {{{alias!r}: {{'HOST': …, 'PORT': …}}}} to the address of the server itself"
