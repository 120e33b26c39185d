"""Detecting in a statement's text whether it leaves session state behind.

The kinds of state are those that DISCARD ALL removes: https://www.postgresql.org/docs/17/sql-discard.html

Most statements leave none, and long ones are long because of their literals. So a text is read as PostgreSQL reads it,
without its literals and comments, but only to a limit: a long literal is passed at the speed of memchr, and a text with
very many literals is not read to its end. Such a text is searched for the keywords that leave state, wherever they are:
one that has them in a literal costs a reset, which is cheaper than reading it.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

# The cache is bounded in bytes: this many texts of at most this many characters.
REMEMBERED_MAX, REMEMBERED_MAX_CHARS = 512, 2_000
# A step of reading costs about a microsecond, and a character between two literals five nanoseconds.
# Reading a text of many literals takes longer than searching a text of this many characters.
SEARCHED_FIRST_MAX_CHARS = 16_000
STEPS, CHARS_PER_STEP, STEP_MAX_CHARS = 64, 4_096, REMEMBERED_MAX_CHARS
ARGUMENTS_MAX_CHARS = 2_000
UNKNOWN = -1

_FLAGS = re.ASCII | re.IGNORECASE | re.VERBOSE  # PostgreSQL's white space and letters of keywords
_CHANGES_ROWS = re.compile(r"\s*+ (?: INSERT | UPDATE | DELETE | MERGE | COPY ) \b", _FLAGS)
_IS_QUIET = re.compile(
    r"\s*+ (?: SELECT | WITH | VALUES | TABLE | BEGIN | COMMIT | ROLLBACK | SAVEPOINT | RELEASE ) \b", _FLAGS
)
_BLANK_OR_COMMENT = r"(?: \s | -- | /\* )"

# Each begins with a rare character without upper and lower case: the search goes from one to the next.
_HINTS = {
    ";": re.compile(
        r""" ; (?: \s*+ (?: \( | -- | /\* | (?: SET | LISTEN | PREPARE | LOAD | DO | CALL | CREATE | DECLARE
               | SELECT | WITH | VALUES | TABLE | EXPLAIN | EXECUTE ) \b ) )""",
        _FLAGS,
    ),
    "_": re.compile(
        r"_ (?: (?<=set_) config | (?<=pg_) (?: temp (?: _\d++ )?+ "
        rf"""(?: "? {_BLANK_OR_COMMENT}*+ \. | "? {_BLANK_OR_COMMENT} )"""
        r"| (?: try_ )? advisory_lock ) )",
        _FLAGS,
    ),
    "&": re.compile(r'& (?<=u&) "', _FLAGS),  # an identifier with escaped characters may be any of these
}
_INTO_TEMP_HINT = re.compile(rf"into {_BLANK_OR_COMMENT} (?: [^;]{{0,200}}? ) temp (?: orary )? \b", _FLAGS)

# A keyword may be a name: SET local.a = 1 sets local.a for the session, PREPARE transaction AS … prepares a statement.
_LEAVES_STATE = re.compile(
    r"""
      (?: ^ | ; ) \s*+
      (?: SET \b (?! \s*+ (?: LOCAL | TRANSACTION | CONSTRAINTS ) \s++ (?! \. ) )
        | LISTEN \b | PREPARE \b (?! \s*+ TRANSACTION \s*+ E?' ) | LOAD \b | DO \b | CALL \b )
    | \b CREATE \s++ (?: OR \s++ REPLACE \s++ )? (?: (?: LOCAL | GLOBAL ) \s++ )? TEMP (?: ORARY )? \b
    | \b pg_ (?: try_ )? advisory_lock
    | \b pg_temp (?: _\d++ )? "? \s*+ \.
    | \b INTO \s++ (?: (?: LOCAL | GLOBAL ) \s++ )? TEMP (?: ORARY )? \b \s*+ (?! VALUES \b | DEFAULT \b ) [\w"]
    """,
    _FLAGS,
)
_DECLARE, _WITH_HOLD = re.compile(r"(?: ^ | ; ) \s*+ DECLARE \b", _FLAGS), re.compile(r"\b WITH \s++ HOLD \b", _FLAGS)
_SET_CONFIG = re.compile(r'\b set_config "? \s*+ \(', _FLAGS)
_DELIMITER = re.compile(r"[(),\[\]]")
_LOCAL = re.compile(r"\s*+ (?: is_local \s*+ (?: => | := ) \s*+ )? true \s*+", _FLAGS)

_TOKEN = re.compile(r"""['"$]|--|/\*""")
_LITERAL = re.compile(r"[^']*+(?:''[^']*+)*+'")
_ESCAPED_LITERAL = re.compile(r"[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'", re.DOTALL)
_DOLLAR_TAG = re.compile(r"\$(?:[^\W\d]\w*+)?\$")
_COMMENT_BORDER = re.compile(r"/\*|\*/")


def leaves_state(sql: str) -> bool:
    """Return True if a statement, by its text, leaves session state beyond its transaction.

    What a function of the server does is not seen; for such functions use RESET "always".
    """
    return _remembered(sql) if len(sql) <= REMEMBERED_MAX_CHARS else _leaves_state(sql)


def _leaves_state(sql: str) -> bool:
    if len(sql) <= SEARCHED_FIRST_MAX_CHARS and not _hints_at_state(sql):
        return False
    code = _code_of(sql)
    return _hints_at_state(sql) if code is None else _code_leaves_state(code)


_remembered: Callable[[str], bool] = lru_cache(maxsize=REMEMBERED_MAX)(_leaves_state)


def _hints_at_state(sql: str) -> bool:
    """Return False if a text has nothing, not even in a literal, that could leave state."""
    if any(first in sql and hint.search(sql) for first, hint in _HINTS.items()):
        return True
    if _CHANGES_ROWS.match(sql):
        return False
    return not _IS_QUIET.match(sql) or _may_make_a_temporary_table(sql)


def _may_make_a_temporary_table(sql: str) -> bool:
    folded = sql.lower() if sql.isascii() else sql.encode(errors="surrogatepass").lower().decode("latin-1")
    at = folded.find("into")
    while at >= 0:
        if _INTO_TEMP_HINT.match(folded, at):
            return True
        at = folded.find("into", at + 4)
    return False


def _code_leaves_state(code: str) -> bool:
    """Return True if a text without literals and comments leaves state."""
    if _LEAVES_STATE.search(code):
        return True
    if (declared := _DECLARE.search(code)) and _WITH_HOLD.search(code, declared.end()):
        return True
    return not all(_is_local(code, call.end()) for call in _SET_CONFIG.finditer(code))


def _is_local(code: str, begin: int) -> bool:
    """Return True if the arguments that begin here end in true: set_config(…, …, true) lasts for the transaction."""
    depth, borders = 0, [begin]
    for found in _DELIMITER.finditer(code, begin, begin + ARGUMENTS_MAX_CHARS):
        if found[0] in "([":
            depth += 1
        elif found[0] in ")]":
            depth -= 1
        if depth < 0 or (depth == 0 and found[0] == ","):
            borders.append(found.start())
        if depth < 0:
            return len(borders) == 4 and bool(_LOCAL.fullmatch(code[borders[2] + 1 : borders[3]]))
    return False


def _code_of(sql: str) -> str | None:
    """Return a text with a blank for each comment and '' for each literal; None if unknown or too long."""
    pieces: list[str] = []
    at, steps = 0, STEPS + len(sql) // CHARS_PER_STEP
    for begin, end, written in _tokens(sql):
        steps -= 1
        if end == UNKNOWN or not steps:
            return None
        pieces += sql[at:begin], written
        at = end
    return "".join(pieces) + sql[at:]


def _tokens(sql: str) -> Iterator[tuple[int, int, str]]:
    """Yield the begin and end of each literal, quoted identifier and comment, and its replacement.

    An end is UNKNOWN if it depends on the server's settings or is far away.
    """
    at = 0
    while at < len(sql):
        found = _TOKEN.search(sql, at, at + STEP_MAX_CHARS)
        if found is None:
            if at + STEP_MAX_CHARS < len(sql):
                yield at, UNKNOWN, ""
            return
        begin, kind = found.start(), found[0]
        if kind == "'":
            at = _end_of_literal(sql, begin)
            yield begin, at, "''"
        elif kind == '"':
            at = _after(sql, '"', begin + 1)
            is_escaped = sql[max(0, begin - 2) : begin].lower() == "u&"
            name = sql[begin:at]
            yield begin, UNKNOWN if is_escaped else at, name if name[1:-1].isidentifier() else '"quoted"'
        elif kind == "$":
            tag = None if _continues_word(sql, begin) else _DOLLAR_TAG.match(sql, begin)
            at = _after(sql, tag[0], tag.end()) if tag else begin + 1
            yield begin, at, "''" if tag else "$"
        else:
            at = _after(sql, "\n", begin) if kind == "--" else _end_of_comment(sql, begin)
            yield begin, at, " "


def _end_of_literal(sql: str, begin: int) -> int:
    if sql[begin - 1 : begin] in ("e", "E") and not _continues_word(sql, begin - 1):
        closed = _ESCAPED_LITERAL.match(sql, begin + 1)
        return closed.end() if closed else len(sql)
    end = _after(sql, "'", begin + 1)
    if sql.startswith("'", end):  # a doubled quote is a quote in the literal
        closed = _LITERAL.match(sql, end + 1)
        end = closed.end() if closed else len(sql)
    return UNKNOWN if sql[end - 2 : end] == "\\'" else end  # with standard_conforming_strings off, it goes on


def _continues_word(sql: str, at: int) -> bool:
    before = sql[at - 1 : at]
    return before in ("_", "$") or before.isalnum() or before > "\x7f"


def _end_of_comment(sql: str, begin: int) -> int:
    """Return the end of a block comment; they nest."""
    depth = 0
    for border in _COMMENT_BORDER.finditer(sql, begin):
        depth += 1 if border[0] == "/*" else -1
        if depth == 0:
            return border.end()
    return len(sql)


def _after(sql: str, closing: str, at: int) -> int:
    found = sql.find(closing, at)
    return len(sql) if found < 0 else found + len(closing)
