"""A lock between forks and this app's threads: the threads share it while they work, a fork has it exclusively.

A forked child has only the thread that forked. A lock that another thread held at that moment (of a module being
imported, of a pool or of a C library) stays locked in the child for ever, and the code that needs it there hangs.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Work that takes longer waits for the network, and holds nothing meanwhile that a child needs: see
# docs/decisions/pool-reports.md. A fork that waited for its end would make an outage of Redis one of the main job.
WAIT_MAX_S = 1.0


class ForkLock:
    """A lock that any number of threads share, exclusive for a fork, which waits for them for a limited time."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._at_work: set[object] = set()
        self._forking: set[int] = set()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Do work that a fork waits for. It waits for a fork, but not for a fork that waits for other work."""
        token = object()
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._forking, WAIT_MAX_S)
                self._at_work.add(token)
            yield
        finally:
            with self._changed:
                self._at_work.discard(token)
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait for the work in progress, and let no more begin."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work, WAIT_MAX_S)
            self._forking.add(threading.get_ident())

    def after_fork_in_parent(self) -> None:
        """Let work begin again in the parent."""
        with self._changed:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Start afresh: nothing is in progress, and another thread of the parent may have held the condition's lock."""
        self.__init__()  # type: ignore[misc]


fork_lock = ForkLock()
os.register_at_fork(
    before=fork_lock.before_fork,
    after_in_parent=fork_lock.after_fork_in_parent,
    after_in_child=fork_lock.after_fork_in_child,
)
