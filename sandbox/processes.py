"""Processes and ports of this machine."""

import os
import select
import signal
import socket
from pathlib import Path


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


def peak_memory_bytes(pid: int) -> int:
    """The most memory that a process has had resident since it began."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether anything accepts connections on a port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:  # refused, timed out, or a name that nobody knows
        return False
    return True


def processor_s(pid: int) -> float:
    """Give the processor time that a process has had, in seconds; its ended children are not in it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
