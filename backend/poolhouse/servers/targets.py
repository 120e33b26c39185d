"""The database servers to query: aliases with the same address have one server, which is queried once."""

from dataclasses import dataclass

from django.db import connections

from poolhouse.conf import options
from poolhouse.driver import own_connection_params, postgresql_aliases

DEFAULT_PORT = "5432"


@dataclass(frozen=True)
class Target:
    """A server to query, through the first of its aliases."""

    aliases: tuple[str, ...]

    @property
    def alias(self) -> str:
        """The alias that it is queried through and named after."""
        return self.aliases[0]

    def users(self) -> set[str]:
        """Return the application's roles on it."""
        return {user for alias in self.aliases if (user := own_connection_params(alias, directly=True).get("user"))}

    def databases(self) -> set[str]:
        """Return the application's databases on it."""
        return {name for alias in self.aliases if (name := own_connection_params(alias, directly=True).get("dbname"))}


def targets(alias: str | None = None) -> list[Target]:
    """Return the servers of all PostgreSQL aliases, or of one alias.

    Two addresses may still lead to one server, as when one of them is PgBouncer's; the server's answers show that.
    """
    if alias is not None:
        return [Target((alias,))]
    by_address: dict[tuple[str, str], list[str]] = {}
    for one in postgresql_aliases():
        by_address.setdefault(_address(one), []).append(one)
    return [Target(tuple(aliases)) for aliases in by_address.values()]


def _address(alias: str) -> tuple[str, str]:
    database = {**connections.settings[alias], **options().DIRECT.get(alias, {})}
    return str(database.get("HOST") or ""), str(database.get("PORT") or DEFAULT_PORT)
