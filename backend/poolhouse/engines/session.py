"""What a borrower leaves behind in a session, and how the next one is spared it."""

import re
from functools import lru_cache
from typing import Any

# PostgreSQL's own list of what DISCARD ALL does away with tells what can be left:
# https://www.postgresql.org/docs/17/sql-discard.html
_LEAVES_STATE = re.compile(
    r"""
      (?: ^ | ; ) \s* (?: (?: -- [^\n]* \n | /\* .*? \*/ ) \s* )*
      (?: SET \s (?! \s* (?: LOCAL | TRANSACTION | CONSTRAINTS ) \b )
        | LISTEN \b | PREPARE \s (?! \s* TRANSACTION \b ) | LOAD \b | DO \b | CALL \b
        | CREATE \s+ (?: OR \s+ REPLACE \s+ )? (?: LOCAL \s+ | GLOBAL \s+ )? TEMP
        | DECLARE \b .* \b WITH \s+ HOLD \b )
    | \b set_config \s* \(
    | \b pg_ (?: try_ )? advisory_lock
    | \b INTO \s+ (?: LOCAL \s+ | GLOBAL \s+ )? TEMP
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=2048)
def leaves_state(sql: Any) -> bool:
    """Say whether a statement, as its text tells, leaves something in the session beyond its transaction.

    What a function of the server's does within is not seen; RESET "always" is for those who have such ones.
    """
    return not isinstance(sql, str) or _LEAVES_STATE.search(sql) is not None


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
