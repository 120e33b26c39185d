"""The comparison of strategies, as its users run it: quick, interrupted, and from an earlier journal."""

import json
import re
import signal
import socket
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from config.env import CHECKOUT
from config.strategies import STRATEGIES
from lab.generator import KEPT_SHARE, Closed, loading
from sandbox import debian
from tests.conftest import DEADLINE_S, await_that


def heed_interrupts() -> None:
    """A shell lets what it starts in the background ignore them, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(*arguments: str) -> list[str]:
    return [str(CHECKOUT / "scripts/manage"), "lab_compare", *arguments]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a quick comparison's report, and its JSON."""
    folder = tmp_path_factory.mktemp("lab")
    debian.ensure_tools()
    debian.make(debian.cached_load_generator())  # which is fetched once, and takes what the network takes
    made = subprocess.run(
        command("--quick", "--json", str(folder / "result.json"), "--report", str(folder)),
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return folder, json.loads((folder / "result.json").read_text())


Quick = tuple[Path, dict[str, Any]]


def test_every_strategy_answers_and_keeping_connections_is_faster(quick: Quick) -> None:
    _, result = quick
    assert set(result["requests_per_s"]) == set(STRATEGIES)
    assert all(rate > 0 for rate in result["requests_per_s"].values())
    for kept in ("persistent", "queuepool", "native"):
        assert result["ratio_to_none"][kept] > 1  # the full comparison says how much


def test_exhaustion_is_seen_where_it_must_be(quick: Quick) -> None:
    _, result = quick
    crowded = {row["strategy"]: row for row in result["rows"] if (row["workload"], row["clients"]) == ("think", 512)}
    assert "PostgreSQL: too many connections" in crowded["none"]["errors"]
    assert "PostgreSQL: too many connections" in crowded["persistent"]["errors"]
    for bounded in ("queuepool", "native", "pgbouncer-transaction+persistent"):
        assert "PostgreSQL: too many connections" not in crowded[bounded]["errors"]
        assert crowded[bounded]["server_connections_max"] <= 20
    for pool in ("queuepool", "native"):
        assert crowded[pool]["errors"]["pool: no connection in time"] > 0
        assert crowded[pool]["requests_per_s"] > 0
    broken = crowded["pgbouncer-statement"]
    assert sum(broken["errors"].values()) == broken["answers"]  # atomic() in statement mode


def test_every_row_has_its_figures(quick: Quick) -> None:
    _, result = quick
    for row in result["rows"]:
        good = row["answers"] - sum(row["errors"].values())
        assert (row["p99_ms"] is not None) == (good >= 100)
        if row["p99_ms"] is not None:
            assert row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        if good:
            assert row["processor_us_a_request"]["web"] > 0
        assert row["memory_mib"]["web"] > 0
        assert ("pgbouncer" in row["strategy"]) == (row["memory_mib"]["pgbouncer"] > 0)


class Page(HTMLParser):
    """What a page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.ids.add(value)


def test_the_page_needs_nothing_else(quick: Quick) -> None:
    folder, _ = quick
    page = Page((folder / "strategies-quick.html").read_text())
    assert {"svg", "table", "style"} <= page.tags
    assert not {"script", "link", "img"} & page.tags
    for link in page.links:
        assert link.removeprefix("#") in page.ids or (folder / link).is_file()


def test_the_text_names_files_that_are_there(quick: Quick) -> None:
    folder, result = quick
    text = (folder / "strategies-quick.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert "strategies-quick.html" in links
    for link in links:
        assert (folder / link).is_file()
    assert all(verdict["verdict"] in text for verdict in result["verdicts"])


def few_turns(tmp_path: Path, *options: str) -> list[dict[str, Any]]:
    """The rows of a comparison of one round."""
    few = ("--models", "gthread", "--workloads", "think", "--rounds", "1", "--turn-s", "0.5")
    made = subprocess.run(command(*few, *options, "--json", str(tmp_path / "few.json")), capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    rows: list[dict[str, Any]] = json.loads((tmp_path / "few.json").read_text())["rows"]
    return rows


def test_a_rate_that_is_not_kept_is_marked(tmp_path: Path) -> None:
    """Ten connections of 50 ms serve 200 a second."""
    for_a_while = ("--strategies", "queuepool", "--connections", "10", "--clients", "60")

    def held_rate_per_s() -> float:
        (row,) = few_turns(tmp_path, *for_a_while, "--rate", "40", "--turn-s", "2")
        assert row["steady"] == (row["requests_per_s"] >= KEPT_SHARE * 40)
        return float(row["requests_per_s"]) if row["steady"] else 0

    # A machine that is busy for a moment may hold no rate at all.
    assert await_that(held_rate_per_s, "a rate that is held", 5 * DEADLINE_S) == pytest.approx(40, rel=0.2)
    (missed,) = few_turns(tmp_path, *for_a_while, "--rate", "1000")
    assert not missed["steady"]
    assert missed["requests_per_s"] < 250


def test_a_request_without_a_connection_in_session_mode_is_an_error(tmp_path: Path) -> None:
    """Under ASGI each request has a thread, whose kept connection PgBouncer gives to nobody else."""
    asgi = ("--models", "asgi", "--turn-s", "1.5", "--connections", "4", "--clients", "16")
    (row,) = few_turns(tmp_path, "--strategies", "pgbouncer-session+persistent", *asgi)
    assert sum(row["errors"].values()) > 0


def test_a_web_that_hangs_is_not_without_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections wait in the backlog, and nobody takes them."""
    monkeypatch.setattr("lab.generator.PATIENCE_S", 0.2)
    monkeypatch.setattr("lab.generator.WARM_UP_MOST_S", 0.5)
    debian.ensure_tools()
    debian.make(debian.cached_load_generator())
    with (
        socket.create_server(("127.0.0.1", 0)) as hung,
        loading([f"http://127.0.0.1:{hung.getsockname()[1]}/"], Closed(3)) as under_way,
    ):
        under_way.warm_up()
        now_s = time.time()
        answers = under_way.answers(now_s - 0.1, now_s)
    assert answers.unanswered == 3
    assert not answers.is_steady


def test_an_interrupted_comparison_is_continued(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    few = command(
        *("--strategies", "persistent", "--clients", "4", "--workloads", "one", "--rounds", "4", "--turn-s", "1"),
        *("--journal", str(journal)),
    )
    first = subprocess.Popen(
        few,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no thread of the tests' runs here
    )
    deadline = time.monotonic() + 5 * DEADLINE_S
    while not journal.exists() or len(journal.read_text().splitlines()) < 2:
        assert first.poll() is None, first.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=5 * DEADLINE_S)
    measured = journal.read_text()
    assert len(measured.splitlines()) < 5
    assert subprocess.run(few, capture_output=True).returncode == 0
    lines = journal.read_text().splitlines()
    assert len(lines) == 5
    assert journal.read_text().startswith(measured)


def test_a_published_journal_is_reported_without_measuring(tmp_path: Path) -> None:
    journal = CHECKOUT / "docs/lab/strategies-headline.jsonl.gz"
    written = ("--report", str(tmp_path), "--json", str(tmp_path / "medians.json"))
    made = subprocess.run(command("--from", str(journal), *written), capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "met: queuepool ≥ native" in made.stdout
    assert {file.suffix for file in tmp_path.glob("strategies-headline.*")} == {".html", ".md", ".svg", ".gz"}
    assert (tmp_path / journal.name).read_bytes() == journal.read_bytes()
    result = json.loads((tmp_path / "medians.json").read_text())
    assert result["command"].startswith("scripts/bench strategies --strategies none persistent")


def test_an_earlier_run_that_does_not_exist_is_refused() -> None:
    made = subprocess.run(command("--from", "no-such-file"), capture_output=True, text=True)
    assert made.returncode == 2
    assert "expected a file that an earlier run wrote, got 'no-such-file'" in made.stderr
