"""Rate limits for log lines, per key and in total."""

import threading
from math import inf
from typing import NamedTuple

REMEMBERED_MAX = 500
LINES_MAX = 50


class HeldBack(NamedTuple):
    """The lines that were held back since the last line."""

    alike: int
    """with the same key"""
    others: int
    """with other keys, because of the total limit; rarely used keys are only counted here"""


class Throttle:
    """Lets one line through per key and interval, LINES_MAX of all keys together, and counts the others.

    The total limit is a token bucket: full at the start, and refilled in one interval. The most recent keys are
    remembered, so its memory is bounded.
    """

    def __init__(self) -> None:
        self._logged: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._tokens, self._filled_at = float(LINES_MAX), -inf
        self._others = 0

    def admit(self, key: str, *, now_s: float, interval_s: float) -> HeldBack | None:
        """Return the lines held back since the last one, or None if this one is to be held back too.

        Args:
            key: equal for lines that are alike.
            now_s: the time of a monotonic clock.
            interval_s: between two lines with the same key; 0: no limit.
        """
        with self._lock:
            logged_at, alike = self._logged.pop(key, (-inf, 0))
            is_due = now_s - logged_at >= interval_s
            is_let_through = is_due and self._has_token(now_s, interval_s)
            self._logged[key] = (
                (now_s, 0) if is_let_through else (logged_at, alike + 1)
            )  # at the end, as the most recent
            if len(self._logged) > REMEMBERED_MAX:
                del self._logged[next(iter(self._logged))]
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
