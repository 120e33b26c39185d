"""The progress of an experiment: updated in place on a terminal, otherwise one line every few seconds."""

import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console

LINE_INTERVAL_S = 15.0

T = TypeVar("T")


class Progress:
    """Shows the current step of an experiment, for the length of a block."""

    def __init__(self, console: Console, prefix: str = "") -> None:
        self._console, self._prefix = console, prefix
        self._text = ""
        self._begun_s = time.monotonic()
        self._is_over = threading.Event()
        self._status = console.status("") if console.is_terminal else None
        self._lines = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        else:
            self._lines.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._status:
            self._status.stop()
        else:
            self._is_over.set()
            self._lines.join()

    def __call__(self, text: str) -> None:
        """Set the current step; without a terminal, the first step is printed at once."""
        is_first, self._text = not self._text, f"{self._prefix}{text}"
        if self._status:
            self._status.update(self._text)
        elif is_first:
            self._print_line()

    def each(self, things: Sequence[T], what: str) -> Iterator[T]:
        """Yield each of the things, and show its number."""
        for number, thing in enumerate(things, 1):
            self(f"{what} {number:,} of {len(things):,}")
            yield thing

    def _print_lines(self) -> None:
        while not self._is_over.wait(LINE_INTERVAL_S):
            if self._text:
                self._print_line()

    def _print_line(self) -> None:
        self._console.print(f"{time.monotonic() - self._begun_s:,.0f} s: {self._text}", soft_wrap=True)
