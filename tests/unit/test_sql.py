"""The shape of SQL statements: no value is left in it, and statements that differ only in values are equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolhouse.tracing.sql import SHOWN_MAX_CHARS, without_values


@pytest.mark.parametrize(
    ("sql", "shape"),
    [
        ("SELECT 1, -2.5, .5, 6.02e-23, 0x1F, 1_000 FROM t1", "SELECT ?, -?, ?, ?, ?, ? FROM t1"),
        ("SELECT 'it''s', '', 'a' 'b'", "SELECT ?, ?, ? ?"),
        (r"SELECT E'it\'s', e'a\\', 'C:\', 'x'", "SELECT ?, ?, ?, ?"),
        ("SELECT B'101', x'1F', N'x', U&'d\\0061'", "SELECT ?, ?, ?, ?"),
        ("SELECT date'2024-01-01', interval '1 day'", "SELECT date?, interval ?"),
        ("DO $$ a 'b' $$; DO $é_1$ $$ $é_1$; DO $x$ $y$", "DO ?; DO ?; DO ?"),
        ("SELECT foo$1, a$b$c FROM t WHERE x = $1 AND y = %s AND z = %(name)s AND p %% 2", None),
        ("SELECT 1 -- 'a\n, 2 /* x /* 'y */ 3 */, 4 --", "SELECT ? , ? , ?"),
        ('SELECT "it\'s 1", U&"d\\0061"', 'SELECT "it\'s 1", U&"d\\0061"'),
        ("SELECT 1 WHERE id IN (1, 2,-3)", "SELECT ? WHERE id IN (?)"),
        ("SELECT 1 WHERE id IN (%s)", "SELECT ? WHERE id IN (?)"),
        ("SELECT ARRAY['a', NULL, 'b']", "SELECT ARRAY[?]"),
        ("INSERT INTO t (a, b) VALUES (%s, %s), (1, DEFAULT), ('x', NULL)", "INSERT INTO t (a, b) VALUES (?)"),
        ("SELECT\n\t  a\r\n", "SELECT a"),
        ("SELECT 'never closed", "SELECT ?"),
        (r"SELECT E'never closed''\'", "SELECT ?"),
        ("SELECT E'cut\\", "SELECT ?"),
        ("SELECT 'a''", "SELECT ?"),
        ("", ""),
    ],
)
def test_values_and_comments_are_removed_and_names_kept(sql: str, shape: str | None) -> None:
    expected = shape if shape is not None else "SELECT foo$1, a$b$c FROM t WHERE x = ? AND y = ? AND z = ? AND p %% ?"
    assert without_values(sql) == expected


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), st.integers(0, 3))
def test_no_string_literal_leaves_a_value_behind(text: str, form: int) -> None:
    written = (
        "'" + text.replace("'", "''") + "'",
        "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'",
        "$q$" + text.replace("$", "") + "$q$",
        "/*" + text.replace("*", "").replace("/", "") + "*/ 1",
    )[form]
    assert without_values(f"SELECT {written}, 'x' FROM t") == "SELECT ?, ? FROM t"


def test_a_long_statement_is_cut_without_revealing_values() -> None:
    assert without_values(f"SELECT '{'secret ' * 5000}'") == "SELECT ?"
    shape = without_values(f"SELECT {'a, ' * 5000} 'secret'")
    assert len(shape) == SHOWN_MAX_CHARS + 2
    assert "secret" not in shape
