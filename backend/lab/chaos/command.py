"""`scripts/bench chaos`: the phases one after the other, and the cleanup."""

import argparse
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from lab.chaos import mounts, spools
from lab.chaos.faults import KINDS
from lab.chaos.phase import Phase, Plan, Result
from lab.chaos.report import document, print_report
from lab.chaos.spools import Spool
from lab.chaos.system import running
from lab.progress import Progress
from poolhouse.arguments import whole_number
from sandbox import debian
from sandbox.isolation import remove_spool

SECONDS = 600
SEED_MAX = 1_000_000
FOLDER, STORE = "folder", "object store"
SPOOLS = {"folder": (FOLDER,), "store": (STORE,), "both": (FOLDER, STORE)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--seconds",
        type=whole_number(4, 86_400),
        default=SECONDS,
        metavar="N",
        help="length of load and faults in all (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="repeat the schedule of this seed (default: a random one, which is printed)",
    )
    parser.add_argument(
        "--spool", choices=SPOOLS, default="both", help="where uploads are stored, one after the other (default: both)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=KINDS,
        default=KINDS,
        metavar="FAULT",
        help=f"inject only these faults, of: {', '.join(KINDS)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts, problems and the whole history")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the logs of the services there")
    parser.add_argument(mounts.OWN_MOUNTS, action="store_true", help=argparse.SUPPRESS)


def chaos(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Inject faults under load, and compare the final state with what was acknowledged."""
    missing = {} if arguments.own_mounts else _enter_own_mounts()
    phases = _phases(arguments.spool, missing)
    seed = secrets.randbelow(SEED_MAX) if arguments.seed is None else arguments.seed
    only = "" if arguments.only is KINDS else f" --only {shlex.join(arguments.only)}"
    repeat = f"scripts/bench chaos --spool {arguments.spool} --seconds {arguments.seconds} --seed {seed}{only}"
    console.print(f"seed {seed}; to repeat: {repeat}", soft_wrap=True)
    debian.ensure_tools()
    debian.make(debian.cached_root())
    results = {}
    for phase in phases:
        plan = Plan(seed, arguments.seconds / len(phases), arguments.only)
        results[phase] = _run(phase, plan, arguments, console)
    print_report(results, missing, repeat, console)
    return {
        "question": "is acknowledged data lost or loaded twice while services fail?",
        "command": repeat,
        "seed": seed,
        "not_available": missing,
        "failed": any(result.problems for result in results.values()),
        "phases": {phase: document(result) for phase, result in results.items()},
    }


def _enter_own_mounts() -> dict[str, str]:
    """Restart in a mount namespace; return only if that is impossible, with the missing fault and the reason."""
    obstacle = mounts.obstacle()
    if not obstacle:
        remove_spool()  # exec skips the cleanup at the end of this process
        mounts.enter()
    return {"spool disk full": obstacle}


def _phases(spool: str, missing: dict[str, str]) -> list[str]:
    """Return the requested phases that are available; add the others to `missing`."""
    phases = list(SPOOLS[spool])
    if STORE in phases and not spools.has_object_store():
        phases.remove(STORE)
        missing["store refuses, store silent"] = "moto is not installed: run scripts/setup --dev"
        if not phases:
            raise SystemExit(f"a spool in an object store: {missing.popitem()[1]}")
    return phases


def _run(phase: str, plan: Plan, arguments: argparse.Namespace, console: Console) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="poolhouse-chaos-"))
    on_own_disk = arguments.own_mounts
    try:
        with Progress(console, f"{phase}: ") as progress, _spool(phase, folder, on_own_disk=on_own_disk) as spool:
            progress("starting servers and services")
            with running(folder, spool.url) as system:
                return Phase(plan, system, spool, progress).run()
    finally:
        if arguments.logs and (folder / "log").exists():
            shutil.copytree(folder / "log", arguments.logs / phase.replace(" ", "-"), dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _spool(phase: str, folder: Path, *, on_own_disk: bool) -> Iterator[Spool]:
    where = spools.in_folder(folder, on_own_disk=on_own_disk) if phase == FOLDER else spools.in_object_store(folder)
    with where as spool:
        yield spool
