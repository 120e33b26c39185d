"""Resetting a session, so that its next holder does not see what the last one left behind."""

from typing import Any

# libpq's transaction states, the same in both drivers: https://www.postgresql.org/docs/17/libpq-status.html
IDLE, ACTIVE = 0, 1


def text_of(sql: Any, cursor: Any) -> str:
    """Return the text of a statement: a string, bytes, or a composed one."""
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes | bytearray | memoryview):
        return bytes(sql).decode(errors="replace")
    return str(sql.as_string(cursor))


def end_transaction(connection: Any) -> bool:
    """Roll back the open transaction; return True if none is left by the server's account.

    psycopg2's rollback ignores a transaction that a statement has begun instead of psycopg2.

    Raises:
        the driver's Error: it failed; the connection should be closed.
    """
    connection.rollback()
    if connection.info.transaction_status != IDLE:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
    return bool(connection.info.transaction_status == IDLE)


def reset_session(connection: Any) -> None:
    """Reset a session to its initial state, in one round trip.

    Args:
        connection: the driver's, with no transaction open.

    Raises:
        the driver's Error: it failed; the connection should be closed.
    """
    connection.autocommit = True  # DISCARD ALL refuses to run in a transaction
    with connection.cursor() as cursor:
        cursor.execute("DISCARD ALL")
