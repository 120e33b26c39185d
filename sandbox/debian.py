"""The root folders that servers run from: a Debian release's own packages, unpacked once for every checkout."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sandbox.errors import SandboxError

RELEASE = "trixie"
PACKAGES = ("pgbouncer", "postgresql-17-timescaledb", "redis-server")
# In a folder of its own: it is more than half as large as the others together, and only its tests want it.
PROMETHEUS_PACKAGES = ("prometheus",)
# The load generator, which only the lab wants.
LOAD_PACKAGES = ("nghttp2-client",)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
MOUNT_POINTS = ("dev", "proc", "tmp", "data", "etc/timescale", "etc/redis")
TOOLS = {"mmdebstrap": "mmdebstrap", "bwrap": "bubblewrap"}


@dataclass(frozen=True)
class RootFolder:
    """An unpacked Debian, from which `command` runs a program without it being installed."""

    path: Path
    packages: tuple[str, ...]
    user: str
    """of the folder's own, as whom everything runs in it: initdb wants a name for it"""

    @cached_property
    def user_ids(self) -> tuple[str, str]:
        """The ids of the user and its group."""
        for line in (self.path / "etc/passwd").read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == self.user:
                return uid, gid
        raise SandboxError(f"{self.path} has no user {self.user}; remove the folder, and it is made anew")

    def command(self, argv: list[str], *, binds: dict[Path, str], data: Path, die_with_parent: bool) -> list[str]:
        """Wrap a program so that it sees this folder as / and `data` as /data, and nothing else of the machine.

        Args:
            argv: the program and its arguments, as paths in the folder.
            binds: more folders to show, read-only, and where.
            data: the folder it may write to.
            die_with_parent: end it when the calling process ends.

        """
        uid, gid = self.user_ids
        wrapped = ["bwrap", "--ro-bind", str(self.path), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - the folder's own
        wrapped += ["--bind", str(data), "/data"]
        for source, target in binds.items():
            wrapped += ["--ro-bind", str(source), target]
        wrapped += ["--unshare-user", "--uid", uid, "--gid", gid]
        return [*wrapped, *(["--die-with-parent"] if die_with_parent else []), "--", *argv]


def cached_root() -> RootFolder:
    """Say where the folder of the sandbox's servers is or will be."""
    return _cached(PACKAGES, "postgres")


def cached_prometheus() -> RootFolder:
    """Say where Prometheus' folder is or will be."""
    return _cached(PROMETHEUS_PACKAGES, "prometheus")


def cached_load_generator() -> RootFolder:
    """Say where the load generator's folder is or will be."""
    return _cached(LOAD_PACKAGES, "nobody")


def _cached(packages: tuple[str, ...], user: str) -> RootFolder:
    """Name a folder by what it holds."""
    recipe = "\n".join((RELEASE, *packages, *LEFT_OUT, *MOUNT_POINTS, platform.machine()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poolhouse"
    return RootFolder(cache / f"{RELEASE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}", packages, user)


def ensure_tools() -> None:
    """Install what makes and enters the folder, where this user may; otherwise say exactly what to install.

    Raises:
        SandboxError: a tool is missing and cannot be installed from here, or user namespaces are not allowed.

    """
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if os.geteuid() != 0 and not shutil.which("newuidmap"):
        missing.append("uidmap")
    if missing:
        _install(missing)
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-user", "--uid", "1000", "--gid", "1000", "true"]
    if (answer := subprocess.run(probe, capture_output=True, text=True)).returncode != 0:
        raise SandboxError(
            f"this user may not make user namespaces ({answer.stderr.strip()}). Run it as root, or with Docker "
            "(docker compose -f docker-compose.dev.yml up), or name servers in DATABASE_URL and CELERY_BROKER_URL."
        )


def _install(packages: list[str]) -> None:
    by_hand = f"apt-get install -y {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise SandboxError(f"missing: {', '.join(packages)}. Install them with this system's package manager.")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and (not shutil.which("sudo") or subprocess.run([*sudo, "true"], capture_output=True).returncode != 0):
        raise SandboxError(f"missing: {', '.join(packages)}. Install them: sudo {by_hand}")
    for command in ("apt-get update", f"env DEBIAN_FRONTEND=noninteractive {by_hand} --no-install-recommends"):
        answer = subprocess.run([*sudo, *command.split()], capture_output=True, text=True)
        if answer.returncode != 0:
            raise SandboxError(f"{' '.join([*sudo, command])} failed:\n{answer.stderr.strip()}")


def make(root: RootFolder) -> None:
    """Make the folder unless it is there; two callers at once make it once."""
    root.path.parent.mkdir(parents=True, exist_ok=True)
    with (root.path.parent / f"{root.path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.path.exists():
            _make(root.path, root.packages)


def _make(path: Path, packages: tuple[str, ...]) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    log = path.with_name(f"{path.name}.log")
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    with log.open("w") as errors:
        download = subprocess.Popen(
            ["mmdebstrap", "--variant=apt", f"--include={','.join(packages)}", *options, RELEASE, "-"],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        # Device files cannot be made by an ordinary user, and are not wanted: each run gets a /dev of its own.
        unpack = ["tar", "x", "--no-same-owner", "--exclude=./dev", "--directory", str(unfinished)]
        unpacked = subprocess.run(unpack, stdin=download.stdout, stderr=errors)
        if download.stdout:
            download.stdout.close()
        if download.wait() != 0 or unpacked.returncode != 0:
            raise SandboxError(f"the root folder could not be made; see {log}")
    for mount_point in MOUNT_POINTS:
        (unfinished / mount_point).mkdir(parents=True, exist_ok=True)
    unfinished.rename(path)
