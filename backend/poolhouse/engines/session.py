"""What a borrower leaves behind in a session, and how the next one is spared it."""

import re
from functools import lru_cache
from typing import Any

# libpq's, which both drivers hand on: https://www.postgresql.org/docs/17/libpq-status.html
IDLE, ACTIVE = 0, 1

# PostgreSQL's own list of what DISCARD ALL does away with tells what can be left:
# https://www.postgresql.org/docs/17/sql-discard.html
_LEAVES_STATE = re.compile(
    r"""
      (?: ^ | ; ) \s*
      (?: SET \b (?! \s* (?: LOCAL | TRANSACTION | CONSTRAINTS ) \b )
        | LISTEN \b | PREPARE \b (?! \s* TRANSACTION \b ) | LOAD \b | DO \b | CALL \b
        | CREATE \s+ (?: OR \s+ REPLACE \s+ )? (?: LOCAL \s+ | GLOBAL \s+ )? TEMP (?: ORARY )? \b
        | DECLARE \b .* \b WITH \s+ HOLD \b )
    | \b set_config \s* \(
    | \b pg_ (?: try_ )? advisory_lock
    | \b pg_temp (?: _\d+ )? "? \s* \.
    | \b INTO \s+ (?: LOCAL \s+ | GLOBAL \s+ )? TEMP (?: ORARY )? \s+ (?! VALUES \b | DEFAULT \b ) [\w"]
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"--[^\n]*|/\*(?:(?!/\*|\*/).)*\*/", re.DOTALL)


@lru_cache(maxsize=2048)
def leaves_state(sql: str) -> bool:
    """Say whether a statement, as its text tells, leaves something in the session beyond its transaction.

    What a function of the server's does within is not seen; RESET "always" is for those who have such ones.
    """
    return any(_LEAVES_STATE.search(text) for text in (sql, _without_comments(sql)))


def _without_comments(sql: str) -> str:
    """Put a blank in the place of each comment; they nest, so the innermost go first."""
    while (shorter := _COMMENT.sub(" ", sql)) != sql:
        sql = shorter
    return sql


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
