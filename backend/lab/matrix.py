"""The cells of a comparison, the order in which they are measured, and the journal of those that are done."""

import gzip
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Stand:
    """A web server that is started for one workload, because failures leave requests and connections behind."""

    strategy: str
    model: str
    workload: str


@dataclass(frozen=True)
class Cell:
    """One measurement of a plan."""

    strategy: str
    model: str
    workload: str
    clients: int
    round: int

    @property
    def stand(self) -> Stand:
        """The web server that it needs."""
        return Stand(self.strategy, self.model, self.workload)


@dataclass(frozen=True)
class Block:
    """The measurements on some models: every workload with every number of clients."""

    models: tuple[str, ...]
    workloads: tuple[str, ...]
    clients: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how."""

    strategies: tuple[str, ...]
    blocks: tuple[Block, ...]
    """no two with the same model"""
    rounds: int
    turn_s: float
    connections: int = 20
    """the limit for the pools of a web server in all, or for PgBouncer"""
    health_checks: bool = True
    """each strategy validates a kept connection at checkout, in its own way"""
    rate: float | None = None
    """requests/s to send however long answers take; None: each client sends its next request after an answer"""

    @property
    def conditions(self) -> dict[str, Any]:
        """The settings that all turns of the plan share."""
        return {
            "turn_s": self.turn_s,
            "connections": self.connections,
            "health_checks": self.health_checks,
            "rate_asked_per_s": self.rate,
        }

    def cells(self) -> Iterator[Cell]:
        """Return all cells, one round after the other, those of a stand together.

        Each round has another order of stands, which is the same whenever the plan is repeated, so that other load on
        the machine affects all of them alike. The number of clients grows within a stand.
        """
        chance = random.Random(1)  # noqa: S311 - an order
        stands = [
            (Stand(strategy, model, workload), block.clients)
            for block in self.blocks
            for strategy, model, workload in product(self.strategies, block.models, block.workloads)
        ]
        for number in range(self.rounds):
            for stand, all_clients in chance.sample(stands, len(stands)):
                for clients in sorted(all_clients):
                    yield Cell(stand.strategy, stand.model, stand.workload, clients, number)


@dataclass(frozen=True)
class Turn:
    """A measured cell."""

    cell: Cell
    seen: dict[str, Any]
    """as returned by `lab.observation.Observation.as_document`"""


@dataclass
class Journal:
    """A file to which each turn is added when it ends, so that an interrupted comparison continues where it stopped.

    Its first line records the circumstances: turns of another machine, other versions or another length do not mix.
    """

    path: Path
    circumstances: dict[str, Any]
    turns: list[Turn] = field(default_factory=list)

    @classmethod
    def opened(cls, path: Path, circumstances: dict[str, Any]) -> Self:
        """Read an existing journal to continue it, or begin a new one.

        Raises:
            ValueError: the file's turns were measured in other circumstances; the text names the differences.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(circumstances) + "\n")
            return cls(path, circumstances)
        if path.suffix == ".gz":
            raise ValueError(f"expected a journal to add turns to, got the compressed {path}: read it with --from")
        begun = cls.finished(path)
        # The command may be another: an interrupted comparison is continued with what is left of it.
        keys = sorted((begun.circumstances.keys() | circumstances.keys()) - {"command"})
        if differing := [key for key in keys if begun.circumstances.get(key) != circumstances.get(key)]:
            raise ValueError(
                f"{path} was begun with {_values(begun.circumstances, differing)}; "
                f"now: {_values(circumstances, differing)}. "
                "Continue in the same circumstances, or name another file with --journal."
            )
        _remove_cut_off_line(path)
        return cls(path, circumstances, begun.turns)

    @classmethod
    def finished(cls, path: Path) -> Self:
        """Read a journal as it is; one whose name ends in .gz is compressed."""
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        first, *lines = _whole_lines(text).splitlines()
        return cls(path, json.loads(first), [_turn(line) for line in lines])

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells that are not measured yet, in their order."""
        there = {turn.cell for turn in self.turns}
        return [cell for cell in cells if cell not in there]

    def add(self, turn: Turn) -> None:
        """Append a turn to the file."""
        with self.path.open("a") as file:
            file.write(json.dumps({**asdict(turn.cell), "seen": turn.seen}, separators=(",", ":")) + "\n")
        self.turns.append(turn)


def _whole_lines(text: str) -> str:
    """Return text without a last line that was cut off when the machine went down."""
    return text[: text.rindex("\n") + 1]


def _remove_cut_off_line(path: Path) -> None:
    text = path.read_text()
    if (whole := _whole_lines(text)) != text:
        path.write_text(whole)


def _turn(line: str) -> Turn:
    document = json.loads(line)
    seen = document.pop("seen")
    return Turn(Cell(**document), seen)


def _values(circumstances: dict[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {circumstances.get(key)!r}" for key in keys)
