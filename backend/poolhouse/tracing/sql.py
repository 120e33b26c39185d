"""The shape of an SQL statement without its values, so that it can be shown."""

import re

READ_MAX_CHARS = 8_000
SHOWN_MAX_CHARS = 1_000

# PostgreSQL's lexical rules, as far as needed to find the end of a value. A value that is cut off extends to the end
# of the text. The quantifiers are possessive (*+): an unclosed value must not be matched again as something else.
# https://www.postgresql.org/docs/17/sql-syntax-lexical.html
_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\* )
  | (?P<value>
        [eE]'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z)           # E'it\'s'
      | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*+(?:'|\Z)     # 'it''s', X'1F', U&'\0041'
      | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)
      | \$\d+ | %s | %\(\w+\)s                        # parameters: $1, %s, %(name)s
      | (?:\d|\.\d)[\w.]*(?:(?<=[eE])[+-]\d+)?        # 42, .5, 6.02e-23, 0x1F, 1_000
    )
  | (?P<space> \s+ )
  | (?P<kept> (?:[uU]&)?"(?:[^"]|"")*+(?:"|\Z) | [^\W\d][\w$]* | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST = re.compile(r"([(\[])(?:[-+]?\?|NULL|DEFAULT)(?:, ?(?:[-+]?\?|NULL|DEFAULT))+([)\]])", re.IGNORECASE)
_ROWS = re.compile(r"(\(\?\))(?:, ?\(\?\))+")


def without_values(sql: str) -> str:
    """Return a statement with a question mark for each literal, parameter and list of them.

    Comments are dropped, white space becomes a blank, and long text is cut: statements that differ only in their values
    become equal.
    """
    pieces: list[str] = []
    sql = sql[:READ_MAX_CHARS]
    at = 0
    while match := _TOKEN.match(sql, at):
        at = _end_of_comment(sql, at) if match[0] == "/*" else match.end()
        pieces.append({"comment": " ", "space": " ", "value": "?"}.get(match.lastgroup or "", match[0]))
    shape = _ROWS.sub(r"\1", _LIST.sub(r"\1?\2", " ".join("".join(pieces).split())))
    return shape if len(shape) <= SHOWN_MAX_CHARS else f"{shape[:SHOWN_MAX_CHARS]} …"


def _end_of_comment(sql: str, at: int) -> int:
    """Return the end of a block comment; in PostgreSQL they nest."""
    depth = 0
    for border in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if border[0] == "/*" else -1
        if depth == 0:
            return border.end()
    return len(sql)
