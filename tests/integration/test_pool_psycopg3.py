"""The engine's tests again with psycopg 3: a process has one driver, so they run in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
THE_SAME = [
    "test_engine.py",
    "test_engine_stress.py",
    "test_hand_over.py",
    "test_leaks.py",
    "test_pool_state.py",
    "test_pool_trouble.py",
]
# Django takes psycopg 3 where it can be imported; the settings of these tests see to it that it cannot be from then on.
RUN = """
import sys, psycopg, pytest
status = pytest.main(sys.argv[1:])
from django.db import connection
sys.exit(status if connection.Database is psycopg else "these were not on psycopg 3")
"""


def test_the_engine_behaves_the_same_on_psycopg_3() -> None:
    told = subprocess.run(
        [sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in THE_SAME)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    if told.returncode:
        pytest.fail(told.stdout[-8000:] + told.stderr[-2000:])
    assert " passed" in told.stdout
