"""Which cells a comparison measures, by what it is asked for."""

import argparse

import pytest

from lab.matrix import Plan
from lab.plans import PLANS
from lab.strategies_command import add_arguments, chosen


def plan_of(*options: str) -> Plan:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return chosen(parser.parse_args(options))


def levels(plan: Plan) -> dict[str, set[int]]:
    """The numbers of clients by model."""
    cells = list(plan.cells())
    return {model: {cell.clients for cell in cells if cell.model == model} for model in {cell.model for cell in cells}}


def test_without_options_it_is_the_headline() -> None:
    assert plan_of() == PLANS["headline"]


def test_models_keep_what_the_plan_has_for_them() -> None:
    assert levels(plan_of("--full", "--models", "gevent", "gthread")) == {
        "gevent": {8, 64, 512},
        "gthread": {8, 32, 128},
    }
    assert levels(plan_of("--quick", "--models", "gevent")) == {"gevent": {512}}


def test_a_model_that_is_in_no_plan_is_measured_as_the_first_ones() -> None:
    assert levels(plan_of("--models", "crowd", "gthread")) == {"crowd": {16}, "gthread": {16}}


def test_rows_and_columns_can_be_limited() -> None:
    few = plan_of("--strategies", "none", "--workloads", "ten", "--clients", "1", "2", "--rounds", "3")
    cells = [(cell.strategy, cell.workload, cell.clients, cell.round) for cell in few.cells()]
    assert sorted(cells) == [("none", "ten", clients, number) for clients in (1, 2) for number in (0, 1, 2)]


def test_a_rate_is_refused_where_it_would_be_forgotten() -> None:
    with pytest.raises(ValueError, match=r"--rate 10 .* closes each connection .* gthread"):
        plan_of("--rate", "10", "--models", "sync", "gthread")
    assert plan_of("--rate", "10", "--models", "gthread").rate == 10
