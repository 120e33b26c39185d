"""The spool of a phase: in a folder on a small disk, or in an object store behind a relay."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from pyarrow import fs

from lab.chaos.mounts import Disk, disk
from lab.chaos.relay import HOST, Relay, relay
from lab.chaos.system import quiet_ports
from telemetry.formats import SPOOL_MARKER

DISK_BYTES = 96 << 20
START_TIMEOUT_S = 120
OPTIONS = "scheme=http&region=us-east-1&allow_bucket_creation=true"
LOCATION = "spool:"
"""the prefix in the ledger of paths in the spool"""


@dataclass(frozen=True)
class Spool:
    """A spool, and the handles for faults."""

    url: str
    """INGEST_SPOOL"""
    direct: fs.FileSystem
    """direct access to the spool's root, without the relay"""
    disk: Disk | None = None
    network: Relay | None = None

    def locations(self) -> frozenset[str]:
        """Return the names in the ledger of all files in the spool."""
        found = self.direct.get_file_info(fs.FileSelector("", allow_not_found=True, recursive=True))
        files = {info.path for info in found if info.type == fs.FileType.File}
        return frozenset(LOCATION + path for path in files - {SPOOL_MARKER})


@contextmanager
def in_folder(folder: Path, *, on_own_disk: bool) -> Iterator[Spool]:
    """Provide a spool in a folder for the length of a block."""
    path = folder / "disk"
    if not on_own_disk:
        path.mkdir()
        yield _folder(path / "spool", None)
        return
    with disk(path, DISK_BYTES) as small:
        yield _folder(path / "spool", small)


def _folder(path: Path, small: Disk | None) -> Spool:
    path.mkdir(mode=0o700)
    return Spool(str(path), fs.SubTreeFileSystem(str(path), fs.LocalFileSystem()), disk=small)


def has_object_store() -> bool:
    """Return True if the server of the object store (moto) is installed."""
    return find_spec("moto") is not None


@contextmanager
def in_object_store(folder: Path) -> Iterator[Spool]:
    """Provide a spool in an object store for the length of a block."""
    port, relayed_port = quiet_ports(2)
    with _moto(port, folder / "moto.log"), relay(relayed_port, port) as network:
        base, _ = fs.FileSystem.from_uri(_url(port))
        base.create_dir("bucket")
        direct = fs.SubTreeFileSystem("bucket/poolhouse", base)
        yield Spool(_url(relayed_port), direct, network=network)


def _url(port: int) -> str:
    return f"s3://key:secret@bucket/poolhouse?endpoint_override={HOST}:{port}&{OPTIONS}"


@contextmanager
def _moto(port: int, log: Path) -> Iterator[None]:
    with log.open("w") as output:
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the object store did not start within {START_TIMEOUT_S} s or has ended: see {log}")
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        urlopen(f"http://{HOST}:{port}/moto-api/", timeout=5).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True
