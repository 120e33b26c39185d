"""The root folders that servers run from: packages of a Debian release, unpacked once for all checkouts."""

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
# In a separate folder: it is more than half as large as the others together, and only its tests need it.
PROMETHEUS_PACKAGES = ("prometheus",)
# The load generator, which only the lab needs.
LOAD_PACKAGES = ("nghttp2-client",)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
MOUNT_POINTS = ("dev", "proc", "tmp", "data", "etc/timescale", "etc/redis")
TOOLS = {"mmdebstrap": "mmdebstrap", "bwrap": "bubblewrap"}


@dataclass(frozen=True)
class RootFolder:
    """An unpacked Debian system, from which programs run without being installed on this machine."""

    path: Path
    packages: tuple[str, ...]
    user: str
    """the user in the folder's etc/passwd who runs every program: initdb requires a user with a name"""

    @cached_property
    def user_ids(self) -> tuple[str, str]:
        """Return the ids of the user and its group."""
        for line in (self.path / "etc/passwd").read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == self.user:
                return uid, gid
        raise SandboxError(
            f"the root folder {self.path} has no user {self.user!r}; remove the folder, then the next start makes it"
        )

    def command(self, argv: list[str], *, binds: dict[Path, str], data: Path, die_with_parent: bool) -> list[str]:
        """Return a command that runs a program with this folder as /, `data` as /data, and no other files.

        Args:
            argv: the program and its arguments, with paths inside the folder.
            binds: further folders, mounted read-only, and where.
            data: the folder that the program may write to.
            die_with_parent: kill the program when the calling process ends.

        """
        uid, gid = self.user_ids
        wrapped = ["bwrap", "--ro-bind", str(self.path), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - a private one
        wrapped += ["--bind", str(data), "/data"]
        for source, target in binds.items():
            wrapped += ["--ro-bind", str(source), target]
        wrapped += ["--unshare-user", "--uid", uid, "--gid", gid]
        return [*wrapped, *(["--die-with-parent"] if die_with_parent else []), "--", *argv]


def cached_root() -> RootFolder:
    """Return the root folder of the sandbox's servers, which may not exist yet."""
    return _cached(PACKAGES, "postgres")


def cached_prometheus() -> RootFolder:
    """Return the root folder of Prometheus, which may not exist yet."""
    return _cached(PROMETHEUS_PACKAGES, "prometheus")


def cached_load_generator() -> RootFolder:
    """Return the root folder of the load generator, which may not exist yet."""
    return _cached(LOAD_PACKAGES, "nobody")


def _cached(packages: tuple[str, ...], user: str) -> RootFolder:
    """Return the folder whose name is a hash of its contents' recipe."""
    recipe = "\n".join((RELEASE, *packages, *LEFT_OUT, *MOUNT_POINTS, platform.machine()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poolhouse"
    return RootFolder(cache / f"{RELEASE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}", packages, user)


def ensure_tools() -> None:
    """Install the tools that make and enter a root folder, if this user may.

    Raises:
        SandboxError: a tool is missing and this user may not install it, or may not create user namespaces.

    """
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if os.geteuid() != 0 and not shutil.which("newuidmap"):
        missing.append("uidmap")
    if missing:
        _install(missing)
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-user", "--uid", "1000", "--gid", "1000", "true"]
    if (answer := subprocess.run(probe, capture_output=True, text=True)).returncode != 0:
        raise SandboxError(
            f"this user may not create user namespaces ({answer.stderr.strip()}). Run the command as root, or use "
            "Docker (docker compose -f docker-compose.dev.yml up), or set DATABASE_URL and CELERY_BROKER_URL to "
            "existing servers."
        )


def _install(packages: list[str]) -> None:
    by_hand = f"apt-get install -y {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise SandboxError(
            f"missing tools: {', '.join(packages)} (names of Debian packages). Install them with your package manager."
        )
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and (not shutil.which("sudo") or subprocess.run([*sudo, "true"], capture_output=True).returncode != 0):
        raise SandboxError(f"missing tools: {', '.join(packages)}. Install them: sudo {by_hand}")
    for command in ("apt-get update", f"env DEBIAN_FRONTEND=noninteractive {by_hand} --no-install-recommends"):
        answer = subprocess.run([*sudo, *command.split()], capture_output=True, text=True)
        if answer.returncode != 0:
            raise SandboxError(f"{' '.join([*sudo, command])} failed:\n{answer.stderr.strip()}")


def make(root: RootFolder) -> None:
    """Make the folder if it does not exist; of two concurrent callers, one makes it."""
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
        # An ordinary user cannot create device files. They are not needed: each program gets a /dev of its own.
        unpack = ["tar", "x", "--no-same-owner", "--exclude=./dev", "--directory", str(unfinished)]
        unpacked = subprocess.run(unpack, stdin=download.stdout, stderr=errors)
        if download.stdout:
            download.stdout.close()
        if download.wait() != 0 or unpacked.returncode != 0:
            raise SandboxError(f"could not make the root folder {path}: downloading or unpacking failed; see {log}")
    for mount_point in MOUNT_POINTS:
        (unfinished / mount_point).mkdir(parents=True, exist_ok=True)
    unfinished.rename(path)
