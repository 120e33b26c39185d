"""A heartbeat file for a liveness probe of this process; it does not depend on any server.

A worker that waits for its broker is alive. A restart would interrupt the batches that it is loading, and not make the
broker available. Therefore a thread touches the file, and not the loop that communicates with the broker.
"""

import threading
from pathlib import Path

from celery.signals import beat_init, worker_init

INTERVAL_S = 5.0


def start_heartbeats(file: Path) -> None:
    """Have the main process of the worker, or beat, touch a file every INTERVAL_S."""

    def start(**_: object) -> None:
        threading.Thread(target=_touch_for_ever, args=(file,), name="heartbeat", daemon=True).start()

    for signal in (worker_init, beat_init):
        signal.connect(start, weak=False)


def _touch_for_ever(file: Path) -> None:
    main, pause = threading.main_thread(), threading.Event()
    while main.is_alive():
        file.touch()
        pause.wait(INTERVAL_S)
