"""A small disk that can be full: a tmpfs in a mount namespace that ends with this process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import NoReturn

# Root needs only a mount namespace; an ordinary user must be root in a user namespace.
AS_ROOT = ("unshare", "--mount")
AS_USER = ("unshare", "--user", "--map-root-user", "--mount")
OWN_MOUNTS = "--own-mounts"
"""the argument of a process that already has its own mount namespace"""
PIECE = bytes(1 << 16)


def obstacle() -> str:
    """Return why this user cannot mount a disk; empty if mounting works."""
    probe = [*_unshare(), "mount", "-t", "tmpfs", "probe", "/mnt"]
    try:
        answer = subprocess.run(probe, capture_output=True, text=True)
    except FileNotFoundError:
        return "the program unshare is missing (package util-linux)"
    return f"this user may not mount a tmpfs ({' '.join(answer.stderr.split())})" if answer.returncode else ""


def enter() -> NoReturn:
    """Restart this program in a mount namespace of its own, as the same process."""
    command = [*_unshare(), sys.executable, "-m", "lab", *sys.argv[1:], OWN_MOUNTS]
    os.execvp(command[0], command)  # noqa: S606 - replaces this process


def _unshare() -> tuple[str, ...]:
    return AS_ROOT if os.geteuid() == 0 else AS_USER


class Disk:
    """A disk of a few megabytes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def _filler(self) -> Path:
        return self.root / "filler"

    def fill(self, left_bytes: int) -> None:
        """Fill the disk up to a number of free bytes."""
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(PIECE)
            except OSError as error:
                if error.errno != ENOSPC:
                    raise
            filler.truncate(max(0, filler.tell() - left_bytes))

    def clear(self) -> None:
        """Free the space."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def disk(root: Path, size_bytes: int) -> Iterator[Disk]:
    """Mount a disk for the length of a block; this process must have its own mount namespace."""
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "chaos", str(root)], check=True)
    try:
        yield Disk(root)
    finally:
        # Lazily, because a process may still write there; it ends with the run.
        subprocess.run(["umount", "--lazy", str(root)], check=True)
