"""The API against its own description: schemathesis sends what the OpenAPI document allows, and what it does not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from sandbox.stack import Stack
from tests.acceptance.conftest import Running, started
from tests.conftest import DEADLINE_S

OPERATIONS = ["POST /api/ingest/", "GET /api/jobs/", "GET /api/jobs/{job_id}/", "GET /api/jobs/{job_id}/rejects/"]
EXAMPLES = 30
# What is not allowed of a body of any bytes is rarely found, so many inputs are filtered out.
BOUNDED = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
)
# The document cannot say which columns a body has, so a request that it allows may be refused with 422.
NOT_ASKED = ("positive_data_acceptance",)


@dataclass(frozen=True)
class Described:
    """A web, and a token for it."""

    running: Running
    token: str

    def schema(self) -> Any:
        """The API's description, fetched from it."""
        return schemathesis.openapi.from_url(f"{self.running.stack.address}/api/openapi.json")


@pytest.fixture(scope="module")
def described(make_stack: Callable[..., Stack]) -> Iterator[Described]:
    stack = make_stack()
    with started(stack) as running:
        yield Described(running, running.manage("create_token", "schema").stdout.strip())


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_one_that_the_document_describes(
    described: Described, operation: str, mode: GenerationMode
) -> None:
    method, path = operation.split()
    chosen = described.schema()[path][method]
    excluded = [CHECKS.get_one(name) for name in NOT_ASKED]

    @BOUNDED
    @hypothesis.given(case=chosen.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {described.token}"}, timeout=DEADLINE_S, excluded_checks=excluded
        )

    ask()


def test_every_operation_is_asked(described: Described) -> None:
    found = {f"{one.ok().method.upper()} {one.ok().path}" for one in described.schema().get_all_operations()}
    assert found == set(OPERATIONS)
