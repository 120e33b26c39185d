"""The progress of a job on a real terminal of 80 columns always shows its id and its bar."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
from django.conf import settings

from config.env import CHECKOUT
from telemetry.models import IngestBatch, IngestJob
from tests.conftest import DEADLINE_S
from tests.integration.conftest import await_that
from worker.loader import load

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A management command on a pseudo-terminal."""

    def __init__(self, columns: int, *arguments: str) -> None:
        self._output = b""
        database = settings.DATABASES["default"]["NAME"]
        variables = {**os.environ, "TERM": "xterm", "DB_NAME": database, "INGEST_SPOOL": settings.INGEST_SPOOL}
        variables.pop("COLUMNS", None)  # of the terminal from which the tests were started
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            command = [sys.executable, str(CHECKOUT / "backend/manage.py"), *arguments]
            os.execve(sys.executable, command, variables)

    def shows(self, text: str) -> bool:
        """Read the output, and return True if it has a text."""
        while select.select([self._master], [], [], 0.1)[0]:
            try:
                self._output += os.read(self._master, 65536)
            except OSError:  # the terminal is closed
                break
        return text in "".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """Return the output so far, with a line for each redraw."""
        return re.split(r"[\r\n]+", CONTROL.sub("", self._output.decode(errors="replace")))

    def wait(self) -> int:
        """Return the exit status."""
        deadline = time.monotonic() + DEADLINE_S
        while os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            assert time.monotonic() < deadline, self.lines
            self.shows("")
        self.shows("")
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("columns", [60, 80])
def test_the_bar_and_the_id_of_the_job_are_shown_on_a_narrow_terminal(tmp_path: Path, columns: int) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("time,load\n" + "".join(f"2024-05-01T00:{n:02}:00Z,{n}\n" for n in range(40)))
    words = (str(path), "--time", "time", "--values", "load", "--batch-rows", "20", "--wait")
    terminal = Terminal(columns, "enqueue_ingest", *words)
    await_that(lambda: terminal.shows("0 of 2 batches"))
    job = IngestJob.objects.get()
    first, second = IngestBatch.objects.order_by("pk")
    load(first.pk)
    await_that(lambda: terminal.shows("1 of 2 batches"))
    load(second.pk)
    assert terminal.wait() == 0
    drawn = [line for line in terminal.lines if " of 2 batches" in line and "%" in line]
    assert drawn
    for line in drawn:
        assert len(line) <= columns
        assert line.startswith(f"job {job.pk} ")
        assert line.count("━") + line.count("╸") + line.count("╺") == 20, line
        assert "…" not in line
    assert any(" 50%" in line for line in drawn)
