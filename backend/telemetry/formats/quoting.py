"""Strict CSV, as in RFC 4180 and Python's `csv` with `strict=True`: the ends of records, and their cells.

A record ends with its line, unless a quote is open there. A malformed record (text after a closing quote, or a quote
that is not closed) is only its first line, so that a stray quote never includes the lines after it. Whether a record is
well-formed depends only on its own lines, so a file can be cut after any record, and the parts have the same records.

Blanks around a cell are ignored, except within its quotes.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import islice

import numpy as np

from telemetry.formats.faults import Fault, FaultError

BLANKS = " \t"
NEWLINE, CR, QUOTE = ord("\n"), ord("\r"), ord('"')
# A record of several lines that is longer is taken for one with a stray quote.
MULTILINE_MAX_BYTES = 256 << 10
MASK = 0  # replaces escaped characters; data with a NUL is not parsed by Arrow
QUOTES = re.compile(b'"+')
# Up to this many blanks next to a quote are skipped one by one; longer runs are left to a regular expression.
STEPS_MAX = 32
SHOWN_BYTES = 20


class Lines:
    """The ends of records that have one line each; counting them is fast, and only few offsets are needed."""

    is_regular = True

    def __init__(self, data: bytes, *, is_last: bool) -> None:
        self._is_newline = np.frombuffer(data, np.uint8) == NEWLINE
        self._newlines = int(np.count_nonzero(self._is_newline))
        after_newline = data.rfind(b"\n") + 1
        self._end = len(data) if is_last else after_newline
        self.count = self._newlines + (self._end > after_newline)

    @property
    def ends(self) -> np.ndarray:
        """The end offset of each record."""
        ends = np.flatnonzero(self._is_newline) + 1
        return np.append(ends, self._end) if len(ends) < self.count else ends

    def at(self, index: int) -> tuple[int, int]:
        """Return the end offset of a record, and the number of lines before it."""
        if index in (-1, self.count - 1):
            return self._end, self._newlines
        return int(self.ends[index]), index + 1


class Records:
    """The ends of records, some of which may have several lines."""

    def __init__(self, ends: np.ndarray, line_ends: np.ndarray, *, is_regular: bool) -> None:
        self.ends, self.count = ends, len(ends)
        self.is_regular = is_regular
        """True if all are well-formed, and each quote in them opens or closes a cell or doubles another"""
        self._line_ends = line_ends

    def at(self, index: int) -> tuple[int, int]:
        """Return the end offset of a record, and the number of lines before it."""
        end = int(self.ends[index])
        return end, int(np.searchsorted(self._line_ends, end, side="right"))


@dataclass(frozen=True)
class Dialect:
    """How cells are separated and quoted."""

    delimiter: str = ","
    escape: str = ""
    """the escape character, which has no effect before the end of a line; empty for none"""

    def find(self, data: bytes, *, is_last: bool) -> Lines | Records:
        """Return the ends of records.

        Args:
            data: bytes that begin with a record.
            is_last: True if nothing follows; otherwise the last record may be incomplete, and is left out.
        """
        whole = data if is_last else data[: data.rfind(b"\n") + 1]
        if QUOTE not in whole:
            return Lines(whole, is_last=is_last)
        masked = self._masked(whole)
        line_ends = Lines(masked, is_last=is_last).ends
        counted = self._by_counting(masked, line_ends, is_last=is_last)
        return counted or _Follower(self, masked, line_ends).records(is_last=is_last)

    def split(self, record: bytes, header_count: int | None = None) -> list[bytes]:
        """Return the cells of a record; cells in excess of the header's are counted, but not kept.

        Args:
            record: the bytes between two ends that `find` returned.
            header_count: the number of cells of the header; None if this is the header.

        Raises:
            FaultError: the record is malformed, or its number of cells differs from the header's.
        """
        record = record.rstrip(b"\r\n")
        if QUOTE in record or (self.escape and self.escape.encode() in record):
            cells = self._cells(record, self._masked(record))
            found = list(islice(cells, header_count))
            _require_count(len(found) + sum(1 for _ in cells), header_count)
            return found
        _require_no_cr(record)
        _require_count(record.count(self._separator) + 1, header_count)
        return [cell.strip(self._blanks) for cell in record.split(self._separator)]

    def is_blank(self, record: bytes) -> bool:
        """Return True if a line has nothing but blanks."""
        return not record.strip(self._blanks + b"\r\n")

    def trimmed(self, data: memoryview) -> bytes | memoryview | None:
        """Return regular records without the blanks around their cells; None if there are also blanks within quotes.

        Whether blanks within quotes are significant depends on the column.
        """
        codes = np.frombuffer(data, np.uint8)
        is_blank = reduce(np.logical_or, (codes == blank for blank in self._blanks))
        if not is_blank.any():
            return data
        codes = _between_newlines(self._masked(bytes(data)))
        blanks = np.flatnonzero(is_blank & (codes[1:-1] != MASK)) + 1
        quotes = np.flatnonzero(codes == QUOTE)
        if self._is_blank[codes[quotes[0::2] + 1]].any() or self._is_blank[codes[quotes[1::2] - 1]].any():
            return None
        begins, ends = blanks[np.diff(blanks, prepend=-2) > 1], blanks[np.diff(blanks, append=len(codes) + 2) > 1] + 1
        is_outside = np.searchsorted(quotes, begins) & 1 == 0
        is_trimmed = is_outside & (self._is_edge[codes[begins - 1]] | self._is_edge[codes[ends]])
        if not is_trimmed.any():
            return data
        steps = np.zeros(len(codes), np.int8)
        steps[begins[is_trimmed]], steps[ends[is_trimmed]] = 1, -1
        is_kept = np.cumsum(steps, dtype=np.int8)[1:-1] == 0
        return bytes(np.frombuffer(data, np.uint8)[is_kept])

    def ends_cell(self, data: bytes, position: int) -> bool:
        """Return True if a quoted cell may end at a position: blanks, then a delimiter or the end of the line."""
        return self._cell_end.match(data, position) is not None

    def opening(self, data: bytes, begin: int, end: int) -> int:
        """Return the offset after the next quote at the beginning of a cell, or -1 if there is none."""
        found = self._opening.search(data, begin, end)
        return found.end() if found else -1

    @cached_property
    def _separator(self) -> bytes:
        return self.delimiter.encode()

    @cached_property
    def _blanks(self) -> bytes:
        return BLANKS.replace(self.delimiter, "").encode()

    @cached_property
    def _is_blank(self) -> np.ndarray:
        return np.isin(np.arange(256), list(self._blanks))

    @cached_property
    def _is_edge(self) -> np.ndarray:
        return np.isin(np.arange(256), [ord(self.delimiter), CR, NEWLINE])

    @cached_property
    def _is_border(self) -> np.ndarray:
        return np.isin(np.arange(256), [ord(self.delimiter), QUOTE, NEWLINE])

    @cached_property
    def _opening(self) -> re.Pattern[bytes]:
        return re.compile(rb'(?:\A|(?<=\n)|%s)[%s]*"' % (re.escape(self._separator), self._blanks))

    @cached_property
    def _cell_end(self) -> re.Pattern[bytes]:
        return re.compile(rb"[%s]*(?:%s|\r*(?:\n|\Z))" % (self._blanks, re.escape(self._separator)))

    @cached_property
    def _leading(self) -> re.Pattern[bytes]:
        return re.compile(rb"[%s]*" % self._blanks)

    @cached_property
    def _escaped(self) -> re.Pattern[bytes]:
        return re.compile(re.escape(self.escape.encode()) + rb"([^\r\n])")

    @cached_property
    def _escaped_or_doubled(self) -> re.Pattern[bytes]:
        return re.compile(self._escaped.pattern + b'|"(")') if self.escape else re.compile(b'()"(")')

    def _masked(self, data: bytes) -> bytes:
        """Return data of the same length in which escaped characters are masked."""
        return self._escaped.sub(bytes((MASK, MASK)), data) if self.escape else data

    def _by_counting(self, data: bytes, line_ends: np.ndarray, *, is_last: bool) -> Records | None:
        """Find records by the parity of the quotes before each newline; return None if that is not sufficient."""
        codes = _between_newlines(data)
        quotes = np.flatnonzero(codes == QUOTE)
        if not (self._open_cells(codes, quotes[0::2]) and self._close_cells(codes, quotes[1::2])):
            return None
        ends = line_ends[np.searchsorted(quotes, line_ends, side="right") & 1 == 0]
        unfinished = len(data) - (int(ends[-1]) if len(ends) else 0)
        longest = max(int(np.diff(ends, prepend=0).max(initial=0)), unfinished)
        if longest > MULTILINE_MAX_BYTES or (is_last and unfinished):
            return None
        return Records(ends, line_ends, is_regular=True)

    def _open_cells(self, codes: np.ndarray, quotes: np.ndarray) -> bool:
        """Return True if each of the quotes begins a cell, or is the second of a pair."""
        if self._is_border[codes[quotes - 1]].all():
            return True
        before = self._past_blanks(codes, quotes, -1)
        if before is None:
            return False
        is_second = (codes[before] == QUOTE) & (before == quotes - 1)
        return bool((is_second | (codes[before] == ord(self.delimiter)) | (codes[before] == NEWLINE)).all())

    def _close_cells(self, codes: np.ndarray, quotes: np.ndarray) -> bool:
        """Return True if each of the quotes ends a cell, or is the first of a pair."""
        if self._is_border[codes[quotes + 1]].all():
            return True
        after = self._past_blanks(codes, quotes, 1)
        if after is None:
            return False
        is_first = (codes[after] == QUOTE) & (after == quotes + 1)
        is_line_end = codes[after + (codes[after] == CR)] == NEWLINE
        return bool((is_first | (codes[after] == ord(self.delimiter)) | is_line_end).all())

    def _past_blanks(self, codes: np.ndarray, places: np.ndarray, step: int) -> np.ndarray | None:
        """Return the next positions without a blank in one direction; None after STEPS_MAX steps."""
        places = places + step
        for _ in range(STEPS_MAX):
            is_blank = self._is_blank[codes[places]]
            if not is_blank.any():
                return places
            places = places + step * is_blank
        return None

    def _cells(self, record: bytes, masked: bytes) -> Iterator[bytes]:
        position = 0
        while True:
            begin = self._after_blanks(masked, position)
            if masked[begin : begin + 1] == b'"':
                end = self._quoted_end(masked, begin)
                yield self._plain(record[begin + 1 : end - 1])
                position = masked.find(self._separator, end)
            else:
                position = masked.find(self._separator, begin)
                stop = position if position >= 0 else len(masked)
                end = begin + len(masked[begin:stop].rstrip(self._blanks))
                _require_no_cr(record[begin:end])
                yield self._escaped.sub(rb"\1", record[begin:end]) if self.escape else record[begin:end]
            if position < 0:
                return
            position += 1

    def _after_blanks(self, data: bytes, position: int) -> int:
        found = self._leading.match(data, position)
        return found.end() if found else position

    def _quoted_end(self, masked: bytes, begin: int) -> int:
        end = after_closing_quote(masked, begin + 1)
        if end < 0:
            raise FaultError(Fault.BROKEN_RECORD, f"the quote at byte {begin + 1} of the line is not closed")
        if not self.ends_cell(masked, end):
            shown = masked[end : end + SHOWN_BYTES].decode("latin-1")
            raise FaultError(Fault.BROKEN_RECORD, f"expected a delimiter after a closing quote, got {shown!r}")
        return end

    def _plain(self, cell: bytes) -> bytes:
        """Return the text of a quoted cell, without escapes and doubled quotes."""
        return self._escaped_or_doubled.sub(rb"\1\2", cell)


class _Follower:
    """Finds records one by one in data with malformed ones; about ten times slower."""

    def __init__(self, dialect: Dialect, data: bytes, line_ends: np.ndarray) -> None:
        self._dialect, self._data = dialect, data
        self._line_ends = line_ends
        self._ends = array("q", line_ends.astype(np.int64).tobytes())  # faster than numpy for single elements

    def records(self, *, is_last: bool) -> Records:
        is_end = np.zeros(len(self._ends), bool)
        first = 0
        while first < len(self._ends):
            stop, is_whole = self._next(first, is_last=is_last)
            if stop == first:  # incomplete
                break
            is_end[stop - 1 if is_whole else slice(first, stop)] = True
            first = stop
        return Records(self._line_ends[is_end], self._line_ends, is_regular=False)

    def _next(self, first: int, *, is_last: bool) -> tuple[int, bool]:
        """Find the end of the record that begins with a line.

        Returns:
            The index of the line after it and True; or that of the line after several records of one line each, and
            False.
        """
        start = self._ends[first - 1] if first else 0
        quote = self._data.find(b'"', start)
        if quote < 0 or (line := self._line_at(quote)) > first:
            return (line if quote >= 0 else len(self._ends)), False
        reach, is_whole = self._follow(start, self._ends[first])
        if is_whole and (reach == self._ends[first] or reach - start <= MULTILINE_MAX_BYTES):
            return self._line_at(reach - 1) + 1, True
        # Malformed. As long as the quote is open, each following line has the same end ahead: either it is malformed
        # too, or it does not open a quote at all.
        if reach >= 0 and not is_whole:
            return max(self._line_at(reach), first + 1), False
        if reach < 0 and is_last:
            return len(self._ends), False
        if (
            reach < 0 and len(self._data) - start <= 2 * MULTILINE_MAX_BYTES
        ):  # otherwise there would be many small steps
            return first, False
        reach = reach if is_whole else len(self._data)
        return bisect_left(self._ends, reach - MULTILINE_MAX_BYTES) + 1, False

    def _follow(self, position: int, line_end: int) -> tuple[int, bool]:
        """Follow a record from its first line.

        Returns:
            The offset after it and True; or False and the offset of the quote after which it is malformed, or -1 if
            its quote is not closed.
        """
        while (opened := self._dialect.opening(self._data, position, line_end)) >= 0:
            position = after_closing_quote(self._data, opened)
            if position < 0:
                return -1, False
            if not self._dialect.ends_cell(self._data, position):
                return position - 1, False
            if position > line_end:
                line_end = self._data.find(b"\n", position) + 1 or len(self._data)
        return line_end, True

    def _line_at(self, offset: int) -> int:
        return bisect_right(self._ends, offset)


def after_closing_quote(data: bytes, begin: int) -> int:
    """Return the offset after the quote that closes a cell, or -1 if there is none; doubled quotes are skipped."""
    for quotes in QUOTES.finditer(data, begin):
        if (quotes.end() - quotes.start()) % 2:
            return quotes.end()
    return -1


def _between_newlines(data: bytes) -> np.ndarray:
    """Return the data between two newlines, so that each character has neighbours."""
    return np.frombuffer(b"\n%s\n" % data, np.uint8)


def _require_count(found: int, header_count: int | None) -> None:
    if header_count not in (None, found):
        raise FaultError(Fault.RAGGED_ROW, f"expected {header_count} cells as in the header, got {found}")


def _require_no_cr(cells: bytes) -> None:
    if CR in cells:
        raise FaultError(Fault.BROKEN_RECORD, "a carriage return is only allowed at the end of a line or within quotes")
