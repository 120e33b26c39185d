"""docker-compose.scale.yml: several webs behind one address, and several workers, that fit the server."""

import re
from typing import Any

import yaml

from config.env import CHECKOUT, Queue, Web


class Loader(yaml.SafeLoader):
    """YAML with Compose's tag for a value that is removed."""


Loader.add_constructor("!reset", lambda loader, node: [])

SERVICES: dict[str, Any] = yaml.load((CHECKOUT / "docker-compose.scale.yml").read_text(), Loader)["services"]
BASE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.dev.yml").read_text())["services"]


def default_of(section: type[Any], name: str) -> int:
    return int(section.model_fields[name].default)


def test_all_of_them_fit_the_server() -> None:
    numbers = dict(
        re.findall(r"^(\w+_connections) = (\d+)", (CHECKOUT / "timescale/postgresql.conf").read_text(), re.MULTILINE)
    )
    usable = (
        int(numbers["max_connections"])
        - int(numbers["superuser_reserved_connections"])
        - int(numbers["reserved_connections"])
    )
    web, worker = SERVICES["backend"], SERVICES["worker"]
    pool = int(web["environment"]["DB_MAX_CONNS_DEV"]) + int(web["environment"]["DB_MAX_OVERFLOW_DEV"])
    webs = web["scale"] * default_of(Web, "web_processes") * pool
    workers = worker["scale"] * (default_of(Queue, "worker_processes") + 1)
    beat_and_a_command = 2
    assert webs + workers + beat_and_a_command <= usable


def test_one_address_leads_to_all_webs() -> None:
    assert SERVICES["proxy"]["ports"] == BASE["backend"]["ports"]
    assert SERVICES["backend"]["ports"] == [], "two containers cannot have one port"
    port = BASE["backend"]["environment"]["WEB_PORT"]
    assert f"server backend:{port};" in (CHECKOUT / "deploy/proxy.conf").read_text()
