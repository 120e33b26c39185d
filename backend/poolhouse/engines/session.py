"""What a borrower leaves behind in a session, and how the next one is spared it."""

from typing import Any

# libpq's, which both drivers hand on: https://www.postgresql.org/docs/17/libpq-status.html
IDLE, ACTIVE = 0, 1


def text_of(sql: Any, cursor: Any) -> str:
    """Give the text of whatever a driver takes for a statement: a string, bytes, or one that is composed of parts."""
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes | bytearray | memoryview):
        return bytes(sql).decode(errors="replace")
    return str(sql.as_string(cursor))


def end_transaction(connection: Any) -> bool:
    """Roll back whatever transaction is open, and say whether none is left: the server has the final word.

    psycopg2's own rollback does nothing about a transaction that a statement has begun, and not psycopg2.

    Raises:
        the driver's Error: it cannot be done; the connection should be closed.
    """
    connection.rollback()
    if connection.info.transaction_status != IDLE:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
    return bool(connection.info.transaction_status == IDLE)


def reset_session(connection: Any) -> None:
    """Bring a session back to what it was when it was opened, in one journey to the server.

    Args:
        connection: the driver's, with no transaction open.

    Raises:
        the driver's Error: it cannot be done; the connection should be closed.
    """
    connection.autocommit = True  # DISCARD ALL refuses to run in a transaction
    with connection.cursor() as cursor:
        cursor.execute("DISCARD ALL")
