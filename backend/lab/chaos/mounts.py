"""A small disk that can be full: a tmpfs in a mount namespace of this process's own, which ends with it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import NoReturn

# As root a mount namespace is enough; an ordinary user needs to be root in a namespace of users.
AS_ROOT = ("unshare", "--mount")
AS_USER = ("unshare", "--user", "--map-root-user", "--mount")
OWN_MOUNTS = "--own-mounts"
"""the argument that tells a process that it has a namespace"""
PIECE = bytes(1 << 16)


def obstacle() -> str:
    """Return why this user may have no disk of their own; empty if nothing is in the way."""
    probe = [*_unshare(), "mount", "-t", "tmpfs", "probe", "/mnt"]
    try:
        answer = subprocess.run(probe, capture_output=True, text=True)
    except FileNotFoundError:
        return "the program unshare is missing (package util-linux)"
    return f"this user may not mount a tmpfs ({' '.join(answer.stderr.split())})" if answer.returncode else ""


def enter() -> NoReturn:
    """Start this program again, as the same process, in a mount namespace of its own."""
    command = [*_unshare(), sys.executable, "-m", "lab", *sys.argv[1:], OWN_MOUNTS]
    os.execvp(command[0], command)  # noqa: S606 - it takes the place of this process


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
        """Use up what is free but for a rest."""
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(PIECE)
            except OSError as error:
                if error.errno != ENOSPC:
                    raise
            filler.truncate(max(0, filler.tell() - left_bytes))

    def clear(self) -> None:
        """Free the space again."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def disk(root: Path, size_bytes: int) -> Iterator[Disk]:
    """Mount a disk for the length of a block; this process has a mount namespace of its own."""
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "chaos", str(root)], check=True)
    try:
        yield Disk(root)
    finally:
        # Lazily: what still writes there ends with the run.
        subprocess.run(["umount", "--lazy", str(root)], check=True)
