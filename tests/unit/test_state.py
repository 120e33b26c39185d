"""The detection of session state, compared with a slow and plain reading of PostgreSQL's lexical rules."""

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolhouse.engines import state
from poolhouse.engines.state import leaves_state

LOCAL = r"SET (LOCAL|TRANSACTION|CONSTRAINTS) (?!\.)|PREPARE TRANSACTION ?E?'"
LEAVING = ("SET", "LISTEN", "PREPARE", "LOAD", "DO", "CALL")


def code_of(sql: str) -> str:
    """Read character by character; return the text without literals and comments."""
    code, at = "", 0
    while at < len(sql):
        rest = sql[at:]
        if rest.startswith("--"):
            length, written = len(rest.split("\n", 1)[0]), " "
        elif rest.startswith("/*"):
            length, written = comment_length(rest), " "
        elif rest[0] == "'":
            is_escaped = bool(re.search(r"(?:^|[^\w$])[eE]\Z", sql[:at], re.ASCII))
            length, written = literal_length(rest, is_escaped=is_escaped), "''"
        elif rest[0] == '"':
            length = rest.find('"', 1) + 1 or len(rest)
            written = rest[:length] if re.fullmatch(r'"[^\W\d]\w*"', rest[:length]) else '"quoted"'
        elif (tag := re.match(r"\$(?:[^\W\d]\w*)?\$", rest)) and not re.search(r"[\w$]\Z", sql[:at]):
            end = rest.find(tag[0], tag.end())
            length, written = (len(rest) if end < 0 else end + len(tag[0])), "''"
        else:
            length, written = 1, rest[0]
        code, at = code + written, at + length
    return code


def comment_length(text: str) -> int:
    depth, at = 0, 0
    while at < len(text):
        if text[at : at + 2] in ("/*", "*/"):
            depth += 1 if text[at] == "/" else -1
            at += 2
            if not depth:
                return at
        else:
            at += 1
    return len(text)


def literal_length(text: str, *, is_escaped: bool) -> int:
    at = 1
    while at < len(text):
        if (text[at] == "\\" and is_escaped) or text[at : at + 2] == "''":
            at += 2
        elif text[at] == "'":
            return at + 1
        else:
            at += 1
    return len(text)


def leaves_by_reference(sql: str) -> bool:  # noqa: PLR0911 - a reason each
    code = code_of(sql)
    for one in code.split(";"):
        words = " ".join(one.upper().split())
        if re.match(rf"({'|'.join(LEAVING)})\b", words) and not re.match(LOCAL, words):
            return True
        if re.match(r"CREATE (OR REPLACE )?((LOCAL|GLOBAL) )?TEMP(ORARY)?\b", words):
            return True
        if words.startswith("DECLARE ") and " WITH HOLD" in words:
            return True
        is_query = re.match(r"\(|(SELECT|WITH|VALUES|TABLE|EXPLAIN|EXECUTE)\b", words)
        if is_query and re.search(r"\bINTO ((LOCAL|GLOBAL) )?TEMP(ORARY)? (?!VALUES|DEFAULT)[\w\"]", words):
            return True
        if re.search(r"\bPG_(TRY_)?ADVISORY_LOCK|\bPG_TEMP(_\d+)?\"? ?\.", words):
            return True
        calls = re.findall(r"\bSET_CONFIG\"? ?\((.*)", words)
        if any(not re.match(r"[^,()]*,[^,()]*, ?TRUE ?\)", call) for call in calls):
            return True
    return False


PIECES = st.sampled_from(
    [
        *("SELECT ", "INSERT INTO t_a VALUES (", "UPDATE t SET a = 1 ", "WITH a AS (SELECT 1) ", "DELETE FROM t "),
        *("SET a = 1", "SET LOCAL a = 1", "set\ntransaction READ ONLY", "LISTEN a", "PREPARE a AS ", "DO ", "Load 'a'"),
        *("CREATE TEMP TABLE a ()", "CREATE TABLE a ()", "create temporary view a AS ", "INTO TEMP a"),
        *("set_config('a', 'b', true)", "SET_CONFIG('a', 'b', TRUE)", "set_config('a', 'b', false)", "pg_temp.a"),
        *('"set_config"(a, b, true)', "set_config(%s, %s, %s)", "pg_advisory_lock(1)", "pg_advisory_xact_lock(1)"),
        *("DECLARE a CURSOR ", "WITH HOLD FOR ", "my_temp", "; ", ";", " ", "\n", ",", "(", ")", "%s", "$1", "é"),
        *("'", "''", "E'", "e'\\'", '"', "$$", "$a$", "--", "/*", "*/", "a", "1", "'a'", "'it''s'", "-- a\n"),
        *("/* b */", "INTO temperature"),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@settings(max_examples=3000, deadline=None)
def test_statements_are_read_as_by_the_slow_reference(sql: str) -> None:
    expected = leaves_by_reference(sql)
    assert leaves_state(sql) or not expected, "what it leaves would reach the next"
    if not may_be_cautious(sql):
        assert leaves_state(sql) is expected


def may_be_cautious(sql: str) -> bool:
    """Return True for text that PostgreSQL reads differently under other settings, or rejects."""
    return bool(re.search(r"\\'|set_config|é\w|\bCREATE\b|DECLARE|INTO TEMP", sql, re.IGNORECASE))


@given(st.lists(PIECES, max_size=8).map("".join), st.sampled_from(["'{}'", "{}", "1, {}", "'a', {}", "{};"]))
@settings(max_examples=300, deadline=None)
def test_session_state_is_found_in_long_statements(sql: str, shape: str) -> None:
    filling = shape.format("x" * 300) * (state.SEARCHED_FIRST_MAX_CHARS // 200)
    for long in (sql + filling, filling + sql, filling + ";" + sql, f"INSERT INTO t VALUES ({filling}); {sql}"):
        assert leaves_state(long) or not leaves_by_reference_of_long(long)


def leaves_by_reference_of_long(sql: str) -> bool:
    """Return the same in a time that a test has, with repetitions shortened."""
    return leaves_by_reference(re.sub(r"x{9,}", "x", sql))


@pytest.mark.parametrize(
    ("sql", "leaves"),
    [
        ("SELECT set_config('a', 'b', true)", False),
        ("SELECT pg_catalog.set_config('a', concat('b', ',', ')'), TRUE), 1", False),
        ("SELECT set_config('a', /* false, */ 'b', true -- not false\n)", False),
        ("SELECT set_config('a', set_config('b', 'c', true), true)", False),
        ("SELECT set_config('a', set_config('b', 'c', false), true)", True),
        ("SELECT set_config('a', 'b', is_local => true)", False),
        ("SELECT set_config('a', 'b', %s)", True),
        ("SELECT set_config('a', 'b', 'true')", True),
        ("SELECT set_config('a', 'b', not true)", True),
        ("SELECT set_config((ARRAY['a', 'b'])[1], 'b', true)", False),
        ("SELECT \"set_config\"('a', 'b', false)", True),
        ("SELECT U&\"set\\005fconfig\"('a', 'b', false)", True),
        ("SELECT SET_CONFIG ('a', 'b', false)", True),
        ("SELECT 'set_config(', '; SET a = 1', '/*', pg_advisory_xact_lock(1)", False),
        ("SET LOCAL a = 1; SELECT 1", False),
        ("SET/**/LOCAL a = 1", False),
        ("SET local.a = 1", True),
        ("SET LOCAL .a = 1", True),
        ("SET localé.a = 1", True),
        ("SET transaction.a = 1", True),
        ("PREPARE transaction AS SELECT 1", True),
        ("PREPARE TRANSACTION E'a'", False),
        ("BEGIN; SET a = 1", True),
        ("BEGIN;/* why */ SET a = 1", True),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE a AS SELECT 1", True),
        ("WITH a AS (SELECT 1) SELECT * INTO/**/TEMP b FROM a", True),
        ("WITH a AS (SELECT 1) INSERT INTO temperature SELECT * FROM a", False),
        ("DECLARE a CURSOR FOR SELECT 1; DECLARE b CURSOR WITH HOLD FOR SELECT 1", True),
        ("SELECT 'C:\\', '; SET a = 1 --'", True),  # with standard_conforming_strings off
        ("set_config(", True),
    ],
)
def test_local_and_hidden_settings_are_told_apart(sql: str, leaves: bool) -> None:
    assert leaves_state(sql) is leaves


LONG = 300_000
PROSE = "It''s 3 o'' clock; do nothing, select none; the_house has its temperature. "


@pytest.mark.parametrize(
    ("sql", "leaves"),
    [
        (f"INSERT INTO t_a (b) VALUES ('{PROSE * (LONG // len(PROSE))}')", False),
        (f"INSERT INTO t_a (b) VALUES {'(1, 2.5), ' * (LONG // 10)} (1, 2)", False),
        ("INSERT INTO t_a (b) VALUES " + "('a', 'b;c'), " * (LONG // 20) + "('a', 'b')", False),
        (f"WITH a AS (VALUES {'(1, 2.5), ' * (LONG // 10)} (1, 2)) INSERT INTO temperature SELECT * FROM a", False),
        (f"SELECT * FROM t WHERE a IN ({'1, ' * (LONG // 3)} 1)", False),
        (f"SELECT {'1, ' * (LONG // 3)} 1 INTO TEMP a", True),
        (f"SELECT 'é', {'1, ' * (LONG // 3)} 1 INTO TEMP a", True),
        (f"INSERT INTO t VALUES {'(1, 2.5), ' * (LONG // 10)} (1, 2); set a = 1", True),
        (f"INSERT INTO t VALUES {'(1, 2.5), ' * (LONG // 10)} (1, pg_Advisory_lock(2))", True),
        (f"INSERT INTO t VALUES ('{'set_config' * (LONG // 10)}')", False),
        (f"INSERT INTO t VALUES ('{'a' * LONG}', Set_Config('a', 'b', false))", True),
    ],
    ids=range(11),
)
def test_long_statements_are_judged_without_their_literals(sql: str, leaves: bool) -> None:
    assert leaves_state(sql) is leaves


def test_the_cache_of_statements_is_bounded() -> None:
    state._remembered.cache_clear()  # type: ignore[attr-defined]  # lru_cache's
    for number in range(3 * state.REMEMBERED_MAX):
        leaves_state(f"INSERT INTO t VALUES ('{number}{'x' * state.REMEMBERED_MAX_CHARS}')")
        leaves_state(f"SELECT {number}")
    remembered = state._remembered.cache_info()  # type: ignore[attr-defined]
    assert remembered.currsize == state.REMEMBERED_MAX
    assert remembered.misses == 3 * state.REMEMBERED_MAX, "long ones are not remembered"
    assert state.REMEMBERED_MAX * sys.getsizeof("😀" * state.REMEMBERED_MAX_CHARS) < 5 * 2**20
