"""How often the same thing is said."""

import threading
from math import inf

REMEMBERED_MAX = 500


class Throttle:
    """Lets one line through for each key and interval, and counts those that it holds back.

    It remembers the keys that came last, so its memory is bounded; what it forgets may be said again.
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def admit(self, key: str, *, now_s: float, interval_s: float) -> int | None:
        """Give how many lines were held back since the last that was let through; None: hold this one back too."""
        with self._lock:
            said_at, held_back = self._said.pop(key, (-inf, 0))
            is_due = now_s - said_at >= interval_s
            self._said[key] = (now_s, 0) if is_due else (said_at, held_back + 1)  # at the end: it came last
            if len(self._said) > REMEMBERED_MAX:
                del self._said[next(iter(self._said))]
            return held_back if is_due else None
