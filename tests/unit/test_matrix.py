"""The cells of a plan, their order, and the journal after an interruption."""

import gzip
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from lab.matrix import Block, Journal, Plan, Turn

PLAN = Plan(("none", "queuepool"), (Block(("sync", "gthread"), ("one", "ten"), (32, 8)),), rounds=2, turn_s=1.0)
HERE = {"machine": "this one", "turn_s": 1.0}


def test_a_plan_has_every_cell_once() -> None:
    cells = list(PLAN.cells())
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2 * 2
    assert [cell.round for cell in cells] == [0] * 16 + [1] * 16


def test_blocks_have_workloads_and_clients_of_their_own() -> None:
    blocks = (Block(("sync",), ("one",), (8,)), Block(("gevent", "asgi"), ("think",), (64, 128)))
    cells = {(cell.model, cell.workload, cell.clients) for cell in Plan(("none",), blocks, 1, 1.0).cells()}
    assert cells == {
        ("sync", "one", 8),
        *(("gevent", "think", clients) for clients in (64, 128)),
        *(("asgi", "think", clients) for clients in (64, 128)),
    }


def test_the_order_changes_with_the_round_and_not_with_the_run() -> None:
    cells = list(PLAN.cells())
    assert cells == list(PLAN.cells())
    assert [replace(cell, round=0) for cell in cells[16:]] != cells[:16]


def test_cells_of_one_web_server_follow_each_other_from_few_clients_to_many() -> None:
    cells = list(PLAN.cells())
    starts = sum(1 for before, after in pairwise(cells) if before.stand != after.stand) + 1
    assert starts == 2 * 2 * 2 * 2
    assert [cell.clients for cell in cells[:4]] == [8, 32, 8, 32]


def test_an_interrupted_journal_is_continued(tmp_path: Path) -> None:
    cells = list(PLAN.cells())
    begun = Journal.opened(tmp_path / "journal", HERE)
    for cell in cells[:5]:
        begun.add(Turn(cell, {"requests_per_s": 1.0}))
    again = Journal.opened(tmp_path / "journal", HERE)
    assert again.turns == begun.turns
    assert again.missing(cells) == cells[5:]


def test_a_line_cut_off_in_the_middle_is_measured_again(tmp_path: Path) -> None:
    cells = list(PLAN.cells())
    begun = Journal.opened(tmp_path / "journal", HERE)
    for cell in cells[:2]:
        begun.add(Turn(cell, {"requests_per_s": 1.0}))
    text = begun.path.read_text()
    begun.path.write_text(text[: text.rindex(":")])
    again = Journal.opened(begun.path, HERE)
    assert again.missing(cells) == cells[1:]
    again.add(Turn(cells[1], {"requests_per_s": 2.0}))
    assert Journal.opened(begun.path, HERE).turns == again.turns


def test_turns_of_another_machine_do_not_mix(tmp_path: Path) -> None:
    Journal.opened(tmp_path / "journal", HERE)
    with pytest.raises(ValueError, match=r"machine 'this one'; now: machine 'another'"):
        Journal.opened(tmp_path / "journal", {**HERE, "machine": "another"})


def test_another_command_may_continue_a_journal(tmp_path: Path) -> None:
    Journal.opened(tmp_path / "journal", {**HERE, "command": "one"})
    assert Journal.opened(tmp_path / "journal", {**HERE, "command": "other"}).circumstances["command"] == "other"


def test_a_compressed_journal_is_read_but_not_continued(tmp_path: Path) -> None:
    begun = Journal.opened(tmp_path / "journal", HERE)
    begun.add(Turn(next(PLAN.cells()), {"requests_per_s": 1.0}))
    packed = tmp_path / "journal.gz"
    packed.write_bytes(before := gzip.compress(begun.path.read_bytes()))
    read = Journal.finished(packed)
    assert (read.circumstances, read.turns) == (HERE, begun.turns)
    with pytest.raises(ValueError, match=r"journal\.gz: read it with --from"):
        Journal.opened(packed, HERE)
    assert packed.read_bytes() == before
