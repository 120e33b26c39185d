"""Why a server, or the PgBouncer before it, let nobody in: one that is full is there, and must not be looked for."""

from poolhouse.conf import options

UNREACHABLE, FULL, POOLER_FULL = "unreachable", "full", "behind a PgBouncer that is full"
# Before a session has begun neither driver gives the SQLSTATE (53300 of a server, 08P01 of PgBouncer), but the words.
_OF_SERVER = (
    "too many clients already",
    "remaining connection slots",
    "too many connections for ",  # a role's or a database's limit
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
    """Return what a source is that gave this error, to follow the word "is"."""
    text = str(error)
    if any(words in text for words in _OF_PGBOUNCER):
        return POOLER_FULL
    return FULL if any(words in text for words in _OF_SERVER) else UNREACHABLE


def way_past_pgbouncer(alias: str) -> str:
    """Return what to set where the monitor goes through PgBouncer; empty where DIRECT has the alias."""
    if alias in options().DIRECT:
        return ""
    return f"set POOLHOUSE['DIRECT'] = {{{alias!r}: {{'HOST': …, 'PORT': …}}}} to the address of the server itself"
