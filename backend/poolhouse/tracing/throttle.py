"""How often the same thing is said, and how much altogether."""

import threading
from math import inf
from typing import NamedTuple

REMEMBERED_MAX = 500
LINES_MAX = 50


class HeldBack(NamedTuple):
    """Lines that were not let through, and are told by one that is."""

    alike: int
    """of its own key, since the last"""
    others: int
    """of whatever key, since there was too much altogether; of keys that came rarely, these are forgotten by name"""


class Throttle:
    """Lets one line through for each key and interval, LINES_MAX of all keys together, and counts what it holds back.

    The whole is a token bucket: full at the start, and filled again in an interval. It remembers the keys that came
    last, so its memory is bounded.
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._tokens, self._filled_at = float(LINES_MAX), -inf
        self._others = 0

    def admit(self, key: str, *, now_s: float, interval_s: float) -> HeldBack | None:
        """Give what was held back since the last line that was let through; None: hold this one back too.

        Args:
            key: what lines that are alike have in common.
            now_s: by a clock that does not jump.
            interval_s: 0: nothing is held back.
        """
        with self._lock:
            said_at, alike = self._said.pop(key, (-inf, 0))
            is_due = now_s - said_at >= interval_s
            is_let_through = is_due and self._has_token(now_s, interval_s)
            self._said[key] = (now_s, 0) if is_let_through else (said_at, alike + 1)  # at the end: it came last
            if len(self._said) > REMEMBERED_MAX:
                del self._said[next(iter(self._said))]
            if not is_let_through:
                self._others += is_due
                return None
            others, self._others = self._others, 0
            return HeldBack(alike, others)

    def _has_token(self, now_s: float, interval_s: float) -> bool:
        if interval_s <= 0:
            return True
        gained = (now_s - self._filled_at) * LINES_MAX / interval_s
        self._tokens, self._filled_at = min(LINES_MAX, self._tokens + gained), now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
