"""Processes and ports of this machine."""

import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from types import FrameType


def end_in_good_order() -> None:
    """Let SIGTERM, Ctrl-C and the end of the terminal end this process as SystemExit does: what it started is stopped.

    A second signal does not disturb that.
    """

    def end(number: int, _: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    heeded = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        heeded.append(signal.SIGHUP)
    for each in heeded:
        signal.signal(each, end)


def wait_or_kill_group(process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    """Wait for a process that was signalled, and that leads a group; after the timeout, kill the group."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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


def family_of(pid: int) -> list[int]:
    """A process and all that descend from it and run."""
    family = [pid]
    for member in family:  # it grows while it is walked through
        try:
            family += children_of(member)
        except FileNotFoundError:  # it ended meanwhile
            continue
    return family


def family_processor_s(pid: int) -> float:
    """Give the processor time that a process and its descendants have had, in seconds, the ended ones included."""
    total_s = 0.0
    for member in family_of(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total_s += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total_s


def family_memory_bytes(pid: int) -> int:
    """Give the memory of a process and its descendants; what they share is counted once (proportional set size)."""
    total = 0
    for member in family_of(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return total


def marked_processes(mark: str) -> list[int]:
    """Processes with a variable, the oldest first: each manager before what it manages, so that they end in order."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                started = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
                found.append((started, int(folder.name)))
        except OSError:
            continue  # it has ended, or is another user's
    return [pid for _, pid in sorted(found)]
