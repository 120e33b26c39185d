"""Processes and ports of this machine."""

import os
import select
import signal
import socket


def stop_process(pid: int, stop_signal: signal.Signals, timeout_s: float) -> None:
    """Signal a process and wait for its end; one that does not end in time is killed."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, stop_signal)
        if not select.select([handle], [], [], timeout_s)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [])
    except ProcessLookupError:
        pass  # it ended by itself between the two calls, which is what was wanted
    finally:
        os.close(handle)


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether anything accepts connections on a port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:  # refused, timed out, or a name that nobody knows
        return False
    return True
