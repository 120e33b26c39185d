"""Processes that must not start, and report the reason."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.env import CHECKOUT
from sandbox.stack import Stack

BIN = Path(sys.executable).parent


def start(stack: Stack, command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Start a command that should exit; if it keeps running, the timeout fails the test."""
    environment = {**stack.environment, **variables}
    return subprocess.run(
        command, shell=True, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=30
    )


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack()


def test_the_web_does_not_start_without_its_secrets_and_reports_them(stack: Stack) -> None:
    answer = start(stack, "cd backend && exec gunicorn config.wsgi", SECRET_KEY="", DB_PASS="")
    assert answer.returncode != 0
    assert "SECRET_KEY is not set. Run scripts/env to generate it." in answer.stderr
    assert "DB_PASS is not set" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "command",
    ["cd backend && exec gunicorn config.wsgi", "exec celery -A worker.app worker", "backend/manage.py check"],
)
def test_an_invalid_value_stops_every_process_before_it_starts_anything(stack: Stack, command: str) -> None:
    answer = start(stack, command, DB_MAX_CONNS="many", CELERY_WORKER_RUNNING="1")
    assert answer.returncode == 2
    assert "DB_MAX_CONNS='many': expected a whole number from 1 to 10000" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_worker_without_its_variable_refuses_to_fork_with_the_web_s_pool(stack: Stack) -> None:
    answer = start(stack, "exec celery -A worker.app worker", CELERY_WORKER_RUNNING="")
    assert answer.returncode != 0
    assert "CELERY_WORKER_RUNNING is not set" in answer.stderr + answer.stdout


def test_the_status_works_without_database_and_broker(stack: Stack) -> None:
    away = {"DB_PORT": "1", "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    answer = start(stack, f"exec {sys.executable} backend/manage.py db_pool_status --detailed", **away)
    assert answer.returncode == 0
    assert answer.stdout.startswith("CRITICAL\n")
    assert "process reports are unreachable: Redis: " in answer.stdout
    assert "database server (default) is unreachable: connection to server" in answer.stdout
