"""Processes and ports of this machine."""

import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from types import FrameType


def end_in_good_order() -> None:
    """Make SIGTERM, SIGINT and SIGHUP raise SystemExit, so that `finally` blocks stop what this process started.

    Further signals are ignored, so that they do not interrupt the cleanup.
    """

    def end(number: int, _: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it, and that must stay
        handled.append(signal.SIGHUP)
    for each in handled:
        signal.signal(each, end)


def wait_or_kill_group(process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    """Wait for the end of a process that leads a process group; after the timeout, kill the group."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stop_process(pid: int, stop_signal: signal.Signals, timeout_s: float) -> None:
    """Signal a process and wait for its end; after the timeout, kill it."""
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
        pass  # it ended between the two calls
    finally:
        os.close(handle)


def peak_memory_bytes(pid: int) -> int:
    """Return the peak resident memory of a process (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's running children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Return True if a TCP connection to the port succeeds within a second."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:  # refused, timed out, or an unknown host name
        return False
    return True


def family_of(pid: int) -> list[int]:
    """Return the ids of a process and its running descendants."""
    family = [pid]
    for member in family:  # grows during the loop
        try:
            family += children_of(member)
        except FileNotFoundError:  # it has ended
            continue
    return family


def family_processor_s(pid: int) -> float:
    """Return the processor time of a process and its descendants in seconds, with that of ended children."""
    total_s = 0.0
    for member in family_of(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total_s += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total_s


def family_memory_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants; shared pages count once (proportional set size)."""
    total = 0
    for member in family_of(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return total


def marked_processes(mark: str) -> list[int]:
    """Return the processes that have a variable, oldest first, so that a manager ends before its children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                started = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
                found.append((started, int(folder.name)))
        except OSError:
            continue  # it has ended, or belongs to another user
    return [pid for _, pid in sorted(found)]
