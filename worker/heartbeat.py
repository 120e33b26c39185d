"""A sign of life for a liveness probe, of this process alone: no server is asked for it.

A worker that waits for its broker lives. Started anew it would lose the batches that it is loading, and not find the
broker either. So a thread gives the sign, and not the loop that talks to the broker.
"""

import threading
from pathlib import Path

from celery.signals import beat_init, worker_init

INTERVAL_S = 5.0


def give_heartbeats(file: Path) -> None:
    """Have the worker's main process, or beat, touch a file all the time."""

    def start(**_: object) -> None:
        threading.Thread(target=_touch_for_ever, args=(file,), name="heartbeat", daemon=True).start()

    for signal in (worker_init, beat_init):
        signal.connect(start, weak=False)


def _touch_for_ever(file: Path) -> None:
    main, pause = threading.main_thread(), threading.Event()
    while main.is_alive():
        file.touch()
        pause.wait(INTERVAL_S)
