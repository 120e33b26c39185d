"""The whole advice, as JSON data and as lines for .env."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from poolhouse.sizing.fleet import Bouncers, FleetAdvice, connections_by_cores
from poolhouse.sizing.live import Measured
from poolhouse.sizing.plan import Row
from poolhouse.sizing.process import ProcessAdvice, Setting
from poolhouse.sizing.queue import Holds, Load, Pool, pool_of

SCHEMA_VERSION = 1
SHARES = {"p50_s": 0.50, "p95_s": 0.95, "p99_s": 0.99}
VARIABLES = {
    "POOL_SIZE": "DB_MAX_CONNS",
    "MIN_SIZE": "DB_MIN_CONNS",
    "MAX_OVERFLOW": "DB_MAX_OVERFLOW",
    "TIMEOUT": "DB_POOL_TIMEOUT",
}
PGBOUNCER_VARIABLES = {
    "default_pool_size": "PGBOUNCER_POOL_SIZE",
    "reserve_pool_size": "PGBOUNCER_RESERVE_POOL_SIZE",
    "max_client_conn": "PGBOUNCER_MAX_CLIENT_CONN",
}


@dataclass(frozen=True)
class Advice:
    """The whole advice of db_pool_advise."""

    process: ProcessAdvice
    fleet: FleetAdvice
    measured: Measured | None = None
    """None: the load was given in the options"""
    cores: int | None = None
    """CPU cores of the server, if given"""
    rows: tuple[Row, ...] = ()
    """the plan, if requested"""

    @property
    def pool_now(self) -> Pool | None:
        """The measured pool under the measured load, to compare the model's wait with the measured one."""
        if self.measured is None or self.measured.connections is None:
            return None
        return pool_of(self.measured.load, self.measured.connections)

    @property
    def warnings(self) -> list[str]:
        """What in the advice or the load needs attention."""
        found = list(self.process.warnings)
        now = self.pool_now
        if now is not None and not now.is_stable:
            found.append(
                f"the measured pool of {now.connections} is exhausted, so the load may be higher than measured: raise "
                "POOL_SIZE and measure again"
            )
        at_work = self.fleet.bouncer.default_pool_size
        if self.cores is not None and at_work > (rule := connections_by_cores(self.cores)):
            found.append(
                f"PgBouncer would let {at_work} connections be active at once, more than the {rule} of the rule of "
                "thumb (cores × 2 + 1): measure whether the server is faster with fewer, and shorten transactions"
            )
        return found

    def as_document(self) -> dict[str, Any]:
        """Return the advice as JSON data."""
        process, fleet, deployment = self.process, self.fleet, self.fleet.deployment
        return {
            "schema": SCHEMA_VERSION,
            "load": _load(process.demand.load),
            "measured": self.measured and _measured(self.measured, self.pool_now),
            "target": asdict(process.demand.target),
            "burst": process.demand.burst,
            "process": {
                "settings": _settings(process.settings),
                "utilisation": process.pool.utilisation,
                "wait": {name: _finite(process.wait_s(share)) for name, share in SHARES.items()},
                "threads": process.threads and {**asdict(process.threads), "most": process.threads.most},
            },
            "fleet": {
                **asdict(deployment.fleet),
                "other_connections": deployment.fleet.other_connections,
                "kept": fleet.kept,
                "most": fleet.most,
                "max_connections": deployment.room.max_connections,
                "reserved": deployment.room.reserved,
                "usable": deployment.room.usable,
                "verdict": fleet.verdict,
                "reason": fleet.reason,
            },
            "pgbouncer": _bouncers(fleet.bouncer),
            "cores": self.cores,
            "connections_by_cores": None if self.cores is None else connections_by_cores(self.cores),
            "plan": [_row(row) for row in self.rows],
            "warnings": self.warnings,
        }

    def env_lines(self) -> Iterator[str]:
        """Yield lines for .env, including those for PgBouncer if it is needed."""
        for setting in self.process.settings:
            yield f"{VARIABLES[setting.name]}={setting.value}"
        if self.fleet.verdict in ("due", "too small"):
            yield "USE_PGBOUNCER=true"
            for setting in self.fleet.bouncer.settings:
                if setting.name in PGBOUNCER_VARIABLES:
                    yield f"{PGBOUNCER_VARIABLES[setting.name]}={setting.value}"


def _load(load: Load) -> dict[str, Any]:
    return {"rate_per_s": load.rate_per_s, "hold": _holds(load.holds), "in_use": load.in_use}


def _holds(holds: Holds) -> dict[str, Any]:
    return {"mean_s": holds.mean_s, "cv2": holds.cv2}


def _measured(measured: Measured, now: Pool | None) -> dict[str, Any]:
    return {
        "service": measured.service,
        "process": measured.process,
        "elapsed_s": measured.elapsed_s,
        "lent": measured.checkouts,
        "hosts": measured.hosts,
        "processes": measured.processes,
        "connections": measured.connections,
        "peak": measured.peak,
        "wait": measured.waits.summary(),
        "predicted_wait": now and {name: _finite(now.wait_s(share)) for name, share in SHARES.items()},
    }


def _settings(settings: tuple[Setting, ...]) -> dict[str, Any]:
    return {setting.name: {"value": setting.value, "reason": setting.reason} for setting in settings}


def _bouncers(one: Bouncers) -> dict[str, Any]:
    return {
        "instances": one.instances,
        "clients": one.clients,
        "server_connections": one.most,
        "needed": one.needed,
        "settings": _settings(one.settings),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "web_processes": row.web_processes,
        "hosts": row.hosts,
        "direct": row.direct,
        "way": row.way,
        "sidecar": row.sidecar and _bouncers(row.sidecar),
        "central": row.central and _bouncers(row.central),
        "server_connections": row.server_connections,
        "needed": row.needed,
        "fits": row.fits,
    }


def _finite(seconds: float) -> float | None:
    return seconds if isfinite(seconds) else None
