"""The environment, read once: every variable has a type, a default and a reader.

Each section names who reads it; `.env.example` lists the same variables in the same order, and a test holds the two
together. A value comes from, in this order: a file in /run/secrets, the process environment, the `.env` file.
"""

import os
import re
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PostgresDsn,
    RedisDsn,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from config.strategies import STRATEGIES

CHECKOUT = Path(__file__).resolve().parents[2]
SECRETS_DIR = Path("/run/secrets")

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0, le=10_000)]
AtLeastOne = Annotated[int, Field(ge=1, le=10_000)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(ge=0)]
AtLeastOneSecond = Annotated[int, Field(ge=1)]


def _require_plain(secret: SecretStr) -> SecretStr:
    """Refuse what would end a quoted word: passwords are written into the servers' configuration."""
    if re.search(r"""["'\\\s]""", secret.get_secret_value()):
        raise ValueError("quotes, backslashes and spaces are not allowed")
    return secret


Password = Annotated[SecretStr, AfterValidator(_require_plain)]


def _require_one_named_database(url: PostgresDsn) -> PostgresDsn:
    if len(url.hosts()) != 1 or not (url.path or "").strip("/"):
        raise ValueError("it must name one host and a database, as in postgresql://user:password@host:5432/name")
    return url


DatabaseUrl = Annotated[PostgresDsn, AfterValidator(_require_one_named_database)]


def _require_known(strategy: str) -> str:
    if strategy not in STRATEGIES:
        raise ValueError(f"it must be one of {', '.join(STRATEGIES)}")
    return strategy


def _split_at_commas(value: Any) -> Any:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Words = Annotated[list[str], NoDecode, BeforeValidator(_split_at_commas)]


def _require_origins(origins: list[str]) -> list[str]:
    for origin in origins:
        if not re.fullmatch(r"https?://(\*\.)?[\w.-]+(:\d+)?", origin):
            raise ValueError(f"expected a scheme and a host, as in https://poolhouse.example, got {origin!r}")
    return origins


SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class BadEnvironment(Exception):
    """The environment cannot be used; the text names each variable, its value and what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n  ".join(["The environment cannot be used (see .env.example):", *problems]))
        self.problems = problems


class Section(BaseSettings):
    """Variables with one reader."""

    model_config = SettingsConfigDict(
        env_file=os.environ.get("ENV_FILE", CHECKOUT / ".env"),
        env_ignore_empty=True,
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
        extra="ignore",
        frozen=True,
    )
    read_by: ClassVar[str]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put mounted secrets first: a container that mounts one means it."""
        return init_settings, file_secret_settings, env_settings, dotenv_settings


class Deployment(Section):
    """The Django project."""

    read_by = "config/settings.py"

    secret_key: SecretStr = Field(min_length=32, description="signs sessions and tokens; made by scripts/env")
    django_env: Literal["development", "production"] = Field(
        "development", description="development takes the _DEV variant of a pool variable where one is set"
    )
    debug: bool = Field(False, description="Django's debug pages and query log")
    allowed_hosts: Words = Field(
        ["localhost", "127.0.0.1"], description="host names the web answers to, separated by commas"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["plain", "json"] = Field("plain", description="json: one object a line")
    service_name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.-]{0,24}$",
        description="the first part of application_name; empty: web, worker, beat or manage by how it was started",
    )
    celery_worker_running: bool = Field(
        False, description="set for worker and beat, which then use Django's standard database backend"
    )
    poolhouse_publish_interval_s: Seconds = Field(1.0, gt=0, description="how often each process reports its pools")
    poolhouse_report_ttl_s: Seconds = Field(5.0, gt=0, description="how long a report outlives its process")
    poolhouse_monitor_timeout_s: Seconds = Field(
        2.0,
        ge=1,
        le=600,
        description="how long a status waits for a server, PgBouncer or the reports",
    )
    poolhouse_leak_threshold_s: Seconds = Field(
        30.0, ge=0, description="seconds after which a connection that is held counts as leaked and is logged; 0: never"
    )
    db_slow_query_ms: Annotated[int, Field(ge=-1)] = Field(
        1000, description="milliseconds above which a statement of a request or task is logged; 0: all are, -1: none is"
    )

    @model_validator(mode="after")
    def _outlive_an_interval(self) -> Self:
        interval_s, ttl_s = self.poolhouse_publish_interval_s, self.poolhouse_report_ttl_s
        if ttl_s <= interval_s:
            raise ValueError(
                f"POOLHOUSE_REPORT_TTL_S={ttl_s:g}: it must be more than {interval_s:g} (POOLHOUSE_PUBLISH_INTERVAL_S)"
            )
        return self


class Https(Section):
    """TLS, which a proxy in front of the web terminates."""

    read_by = "config/settings.py"

    require_https: bool | None = Field(
        None,
        description="redirect http to https, except /healthz, /readyz and /metrics, and send cookies over https alone; "
        "empty: in production",
    )
    secure_proxy_ssl_header: str = Field(
        "",
        pattern=r"^[A-Za-z0-9-]*$",
        description="header that the proxy sets to https, as X-Forwarded-Proto, whatever the client has sent; empty: "
        "no header is trusted, unless the proxy connects from 127.0.0.1",
    )
    csrf_trusted_origins: Annotated[Words, AfterValidator(_require_origins)] = Field(
        [],
        description="origins whose forms are accepted, as https://poolhouse.example, separated by commas; only where "
        "the proxy does not pass on the Host",
    )
    secure_hsts_seconds: WholeSeconds = Field(
        3600, description="how long a browser that was here with https comes back with https alone; 0: it may use http"
    )


class Database(Section):
    """PostgreSQL as the application sees it."""

    read_by = "config/database.py"

    database_url: DatabaseUrl | None = Field(
        None, description="postgresql://user:password@host:port/name of a server that already runs; replaces DB_*"
    )
    db_host: str = "127.0.0.1"
    db_port: Port = 15432
    db_name: str = "poolhouse"
    db_user: str = "poolhouse"
    db_pass: Password = Field(SecretStr(""), description="made by scripts/env")
    db_sslmode: SslMode | None = Field(
        None,
        description="how connections to the server use TLS, as libpq's sslmode, PgBouncer's own included: disable, "
        "allow, prefer, require, verify-ca, verify-full; empty: prefer, unless DATABASE_URL says otherwise",
    )
    db_sslrootcert: str = Field(
        "", description="file of the certificate authority that signed the server's certificate, for verify-*"
    )
    db_pool_strategy: Annotated[str, AfterValidator(_require_known)] = Field(
        "queuepool",
        description="how the web keeps connections: queuepool, dj_db_conn_pool, native (Django's pool, on psycopg 3), "
        "persistent (CONN_MAX_AGE), none, or one of the rows with PgBouncer in docs/configuration.md",
    )
    db_max_conns: AtLeastOne = Field(20, description="POOL_SIZE: connections that each web process keeps")
    db_max_overflow: Count = Field(10, description="MAX_OVERFLOW: connections above that, closed on return")
    db_min_conns: Count = Field(2, description="connections that each web process opens at its start")
    db_pool_recycle: Annotated[int, Field(ge=-1)] = Field(
        3600, description="RECYCLE: seconds after which a connection is replaced at its next use; -1: never"
    )
    db_pool_timeout: Seconds = Field(30.0, gt=0, description="TIMEOUT: seconds to wait for a free connection")
    db_max_conns_dev: AtLeastOne | None = Field(5, description="in development, instead of DB_MAX_CONNS")
    db_max_overflow_dev: Count | None = Field(5, description="in development, instead of DB_MAX_OVERFLOW")
    db_min_conns_dev: Count | None = Field(None, description="in development, instead of DB_MIN_CONNS")
    db_pool_recycle_dev: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="in development, instead of DB_POOL_RECYCLE"
    )
    db_pool_timeout_dev: Seconds | None = Field(None, gt=0, description="in development, instead of DB_POOL_TIMEOUT")
    db_conn_max_age: WholeSeconds = Field(60, description="seconds a connection of the standard backend is kept")
    db_conn_health_checks: bool = Field(True, description="test a connection before it is used again")
    db_connect_timeout: AtLeastOne = Field(10, description="seconds to wait for the server when connecting")
    db_statement_timeout: Annotated[int, Field(ge=0)] = Field(
        30_000, description="milliseconds after which the server ends a statement, but a command's; 0: never"
    )

    @model_validator(mode="after")
    def _require_a_password(self) -> Self:
        if self.database_url is None and not self.db_pass.get_secret_value():
            raise ValueError(_missing("DB_PASS"))
        return self

    @model_validator(mode="after")
    def _require_an_authority(self) -> Self:
        if (self.db_sslmode or "").startswith("verify-") and not self.db_sslrootcert:
            raise ValueError(f"DB_SSLMODE={self.db_sslmode}: set DB_SSLROOTCERT to the authority's certificate file")
        return self

    @property
    def tls(self) -> dict[str, str]:
        """Return libpq's parameters for TLS, those that are set."""
        parameters = {"sslmode": self.db_sslmode or "", "sslrootcert": self.db_sslrootcert}
        return {name: value for name, value in parameters.items() if value}


class Queue(Section):
    """Celery: its broker Redis, in which processes also report their pools, and its worker."""

    read_by = "config/celery.py"

    celery_broker_url: RedisDsn | None = Field(
        None, description="redis://:password@host:port/0 of a server that already runs; replaces REDIS_*"
    )
    redis_host: str = "127.0.0.1"
    redis_port: Port = 16379
    redis_password: Password = Field(SecretStr(""), description="made by scripts/env")
    worker_processes: AtLeastOne = Field(2, description="processes of the Celery worker")
    heartbeat_file: Path | None = Field(
        None, description="file that worker and beat touch every 5 s, for a liveness probe; empty: none"
    )

    @model_validator(mode="after")
    def _require_a_password(self) -> Self:
        if self.celery_broker_url is None and not self.redis_password.get_secret_value():
            raise ValueError(_missing("REDIS_PASSWORD"))
        return self

    @property
    def url(self) -> str:
        """The broker's URL, password included."""
        if self.celery_broker_url is not None:
            return str(self.celery_broker_url)
        password = quote(self.redis_password.get_secret_value(), safe="")
        return f"redis://:{password}@{self.redis_host}:{self.redis_port}/0"


class Ingest(Section):
    """Time series and their intake."""

    read_by = "telemetry and worker, through Django's settings"

    reading_chunk_interval_hours: AtLeastOne = Field(24, description="span of a hypertable chunk; applied by migrate")
    ingest_batch_rows: Annotated[int, Field(ge=1, le=10_000_000)] = Field(100_000, description="input rows in a batch")
    ingest_resend_after_s: AtLeastOne = Field(
        60, description="a batch queued for longer, which the broker does not have and nobody loads, is sent again"
    )
    ingest_time_limit_s: AtLeastOne = Field(600, description="a batch that takes longer has failed")
    ingest_max_attempts: AtLeastOne = Field(5, description="failures after which a batch is parked")
    ingest_retry_max_s: Annotated[int, Field(ge=1)] = Field(
        86_400,
        description="seconds for which a batch is tried again after interruptions, such as a server that is away, "
        "before it is parked",
    )
    ingest_input_grace_s: WholeSeconds = Field(
        900, description="seconds for which the spool keeps an input after its job is done"
    )
    ingest_rejects_max_bytes: Annotated[int, Field(ge=0)] = Field(
        2**20, description="size of a batch's list of rejected rows; those beyond are counted and not listed"
    )
    ingest_rejects_keep_s: Annotated[int, Field(ge=3600)] = Field(
        30 * 86_400, description="seconds for which the spool keeps the lists of rejected rows"
    )
    ingest_upload_max_bytes: Annotated[int, Field(ge=1)] = Field(
        10 * 2**30, description="size of an upload, unpacked, above which it is refused"
    )
    ingest_upload_idle_s: AtLeastOne = Field(60, description="an upload whose client is silent for longer is cut off")
    ingest_upload_min_bytes_per_s: Annotated[int, Field(ge=1)] = Field(
        16_384,
        description="average rate of an upload below which it is cut off once it has lagged by INGEST_UPLOAD_IDLE_S",
    )
    ingest_upload_max_s: AtLeastOneSecond = Field(14_400, description="an upload that takes longer is cut off")
    ingest_token_spool_bytes: Annotated[int, Field(ge=1)] = Field(
        20 * 2**30, description="bytes that the uploads of one token may have in the spool; above, they are refused"
    )
    ingest_spool_min_free_bytes: Annotated[int, Field(ge=0)] = Field(
        2**30, description="free bytes of the spool's disk that no input may take; a spool with a URL has no such bound"
    )
    ingest_clean_interval_s: AtLeastOneSecond = Field(300, description="how often beat has the spool cleaned")
    ingest_clean_age_s: AtLeastOneSecond = Field(
        86_400, description="age at which a file in the spool that belongs to no unfinished job is removed"
    )
    ingest_max_unfinished_batches: Annotated[int, Field(ge=1)] = Field(
        10_000, description="batches that wait to be loaded, above which uploads are refused for a while"
    )
    ingest_worker_memory_bytes: Annotated[int, Field(ge=64 * 2**20)] = Field(
        512 * 2**20,
        description="memory of a worker process beyond its idle size; files that need more are refused",
    )
    ingest_spool: str = Field(
        "var/spool",
        description="folder, or URL as s3://bucket/folder, shared by web and workers: uploads, unpacked files, rejects",
    )

    @model_validator(mode="after")
    def _spare_what_is_under_way(self) -> Self:
        if self.ingest_clean_age_s <= self.ingest_upload_max_s:
            raise ValueError(
                f"INGEST_CLEAN_AGE_S={self.ingest_clean_age_s}: it must be more than {self.ingest_upload_max_s} "
                "(INGEST_UPLOAD_MAX_S), or an upload under way could be removed"
            )
        return self

    @field_validator("ingest_spool")
    @classmethod
    def _make_absolute(cls, place: str) -> str:
        return place if "://" in place else str((CHECKOUT / place).resolve())


class Web(Section):
    """The web server."""

    read_by = "gunicorn.conf.py, config/request_worker.py; the threads for uploads by config/settings.py"

    web_bind: str = Field("127.0.0.1", description="address to listen on")
    web_port: Port = 8000
    web_processes: AtLeastOne = 2
    web_threads: AtLeastOne = Field(8, description="threads of each process: requests it serves at once")
    web_upload_threads: AtLeastOne | None = Field(
        None,
        description="of these, how many may have an upload at once: fewer than all, unless there is one; empty: half "
        "of them",
    )
    web_connections: Annotated[int, Field(ge=64, le=10_000)] = Field(
        512, description="connections of each process; above, those without a request are closed, the oldest first"
    )
    web_request_timeout_s: Seconds = Field(
        10.0, gt=0, description="seconds for a request's header, and its body unless it is an upload, to arrive"
    )
    web_body_max_bytes: Annotated[int, Field(ge=0, le=2**20)] = Field(
        65_536, description="size of a body, other than an upload's, above which it is refused"
    )
    web_client_idle_s: Seconds = Field(
        20.0, gt=0, description="a client that takes nothing of its answer for longer is cut off"
    )
    web_client_bytes_per_s: Annotated[int, Field(ge=1)] = Field(
        16_384, description="average rate below which a client is cut off once it has lagged by WEB_CLIENT_IDLE_S"
    )

    @model_validator(mode="after")
    def _leave_threads_for_others(self) -> Self:
        most = max(1, self.web_threads - 1)
        if self.web_upload_threads is not None and self.web_upload_threads > most:
            raise ValueError(
                f"WEB_UPLOAD_THREADS={self.web_upload_threads}: it must not be more than {most}, so that WEB_THREADS="
                f"{self.web_threads} has threads for other requests"
            )
        return self

    @property
    def uploads_at_once(self) -> int:
        """How many uploads a process takes at once."""
        return self.web_upload_threads or max(1, self.web_threads // 2)


class Monitor(Section):
    """The pools' monitor, as the database server and PgBouncer know it."""

    read_by = "config/settings.py, config/database.py, and sandbox, which makes the role"

    db_monitor_user: str = Field(
        "poolhouse_monitor", description="may take a reserved connection when the server is full; not with DATABASE_URL"
    )
    db_monitor_pass: Password = Field(SecretStr(""), description="made by scripts/env")
    metrics_token: Password = Field(
        SecretStr(""),
        description="what a reader of /metrics, and of the details of / and /readyz, sends as Authorization: Bearer "
        "...; made by scripts/env; empty: nobody may read them",
    )
    pgbouncer_host: str = Field(
        "",
        description="where PgBouncer answers; empty: 127.0.0.1, and the status asks it if the strategy goes through it",
    )
    pgbouncer_port: Port = 16432
    pgbouncer_sslmode: SslMode | None = Field(
        None,
        description="how connections to PgBouncer use TLS, as DB_SSLMODE, with DB_SSLROOTCERT; empty: prefer, unless "
        "PGBOUNCER_URL says otherwise",
    )

    @property
    def pgbouncer_url(self) -> str:
        """PgBouncer's console as a URL; empty where it is not to be asked."""
        if not self.pgbouncer_host:
            return ""
        words = (self.db_monitor_user, self.db_monitor_pass.get_secret_value())
        user, password = (quote(word, safe="") for word in words)
        return f"postgresql://{user}:{password}@{self.pgbouncer_host}:{self.pgbouncer_port}/pgbouncer"


class Pooler(Section):
    """PgBouncer, between the web and PostgreSQL."""

    read_by = "config/database.py; the sizes by sandbox and docker-compose.dev.yml, which start it"

    use_pgbouncer: bool | None = Field(
        None,
        description="true: the web goes through PgBouncer in transaction mode, with DB_POOL_STRATEGY in front of it; "
        "false: it must not; empty: as DB_POOL_STRATEGY says",
    )
    pgbouncer_url: DatabaseUrl | None = Field(
        None,
        description="postgresql://user:password@host:port/name of a PgBouncer that already runs, for the web; replaces "
        "PGBOUNCER_HOST there, and the database's name is used as it is",
    )
    pgbouncer_pool_size: AtLeastOne = Field(20, description="server connections that each pool may have")
    pgbouncer_reserve_pool_size: Count = Field(
        5, description="above that, for clients that have waited for 5 s; all pools together have no more than both"
    )
    pgbouncer_max_client_conn: AtLeastOne = Field(1000, description="clients; the next one is refused")
    pgbouncer_query_wait_timeout_s: WholeSeconds = Field(
        30, description="seconds for which a client waits for a server connection before it is refused; 0: for ever"
    )

    @property
    def most(self) -> int:
        """How many server connections it opens at most, in all its pools."""
        return self.pgbouncer_pool_size + self.pgbouncer_reserve_pool_size


class Servers(Section):
    """What only the scripts that start the servers need."""

    read_by = "sandbox (scripts/services, up and demo) and docker-compose.dev.yml"

    postgres_password: Password = Field(
        SecretStr(""), description="of the superuser postgres, who sets up the database; made by scripts/env"
    )
    prometheus_port: Port = Field(19090, description="where Prometheus answers, in containers with --profile metrics")
    sandbox_dir: Path = Field(Path("var"), description="folder of the servers' data and of the logs, in the checkout")


S = TypeVar("S", bound="Section")

SECTIONS: tuple[type[Section], ...] = (Deployment, Https, Database, Queue, Ingest, Web, Monitor, Pooler, Servers)


def read(section: type[S]) -> S:
    """Read one section of the environment.

    Raises:
        BadEnvironment: a variable is missing or has a value that is not allowed.

    """
    given = tuple(os.environ.get(name.upper()) for name in section.model_fields)
    file = Path(str(section.model_config.get("env_file")))
    found: S = _read(section, given, _written_at(file), _written_at(SECRETS_DIR))
    return found


@cache
def _read(section: type[S], *_: Hashable) -> S:
    """Read it anew where a source has changed: to parse a file takes 10 ms, and a start asks dozens of times."""
    try:
        return section()
    except ValidationError as error:
        raise BadEnvironment([_describe(problem) for problem in error.errors()]) from None


def _written_at(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _missing(name: str) -> str:
    return f"{name} is not set. Run scripts/env to generate it."


def _describe(problem: ErrorDetails) -> str:
    """Say which variable is wrong, its value unless it is a secret, and what is allowed."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0]).upper()
    if problem["type"] == "missing":
        return _missing(name)
    secret = any(word in name for word in ("SECRET", "PASS", "URL", "TOKEN"))
    value = "(a secret, not shown)" if secret else repr(problem["input"])
    return f"{name}={value}: {message[0].lower()}{message[1:]}"
