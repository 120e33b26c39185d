"""Clients that send uploads and retry as documented, and an operator that cancels and retries jobs."""

import http.client
import json
import re
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from urllib.parse import urlencode

from lab.chaos.history import Attempt, History, Outcome
from lab.chaos.payload import COLUMNS, CONTENT_TYPES, ENDINGS, Upload
from lab.chaos.plan import Order
from lab.chaos.system import System
from sandbox.servers import HOST

HTTP_TIMEOUT_S = 30
COMMAND_TIMEOUT_S = 90
INTERRUPTED_TIMEOUT_S = 30
BACKOFF_S = 1.0
RECENT_JOBS = 10
MISUSE = 2
JOB = re.compile(r"\bjob (\d+)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Deadline:
    """When clients stop."""

    enough: Event = field(default_factory=Event)
    """set: nothing new is sent"""
    give_up: Event = field(default_factory=Event)
    """set: nothing is sent again"""


@dataclass(frozen=True)
class Answer:
    """What a client knows after an attempt."""

    outcome: Outcome
    detail: str
    job_id: int | None = None
    retry_after_s: float = BACKOFF_S


class Client(ABC):
    """A client that sends uploads one after the other, each of them until it is acknowledged or refused."""

    def __init__(self, system: System, uploads: Iterator[Upload], history: History, deadline: Deadline) -> None:
        self.system, self.uploads, self.history, self.deadline = system, uploads, history, deadline

    def run(self) -> None:
        """Send uploads until the deadline."""
        for upload in self.uploads:
            if self.deadline.enough.wait(upload.pause_s):
                return
            self.history.begin(upload)
            self._send_until_known(upload)

    def _send_until_known(self, upload: Upload) -> None:
        breaks_off_s = upload.breaks_off_s
        while True:
            begun_s = time.time()
            answer = self.send(upload, breaks_off_s)
            self.history.attempted(
                Attempt(upload.name, begun_s, time.time(), answer.outcome, answer.detail, answer.job_id)
            )
            if answer.outcome is not Outcome.UNKNOWN or self.deadline.give_up.wait(answer.retry_after_s):
                return
            breaks_off_s = None

    @abstractmethod
    def send(self, upload: Upload, breaks_off_s: float | None) -> Answer:
        """Send an upload once; abort it after `breaks_off_s` if that is set."""


class HttpClient(Client):
    """A client over HTTP: the same Idempotency-Key with each attempt, Retry-After honoured (docs/http.md)."""

    token = ""

    def send(self, upload: Upload, breaks_off_s: float | None) -> Answer:
        """Post an upload; to abort it, close the connection without reading the answer."""
        connection = http.client.HTTPConnection(HOST, self.system.web_port, timeout=HTTP_TIMEOUT_S)
        query = urlencode({**COLUMNS, "name": upload.file_name, "batch_rows": upload.batch_rows})
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": CONTENT_TYPES[upload.format],
            "Content-Encoding": upload.compression or "identity",
            "Idempotency-Key": upload.name,
        }
        try:
            connection.request("POST", f"/api/ingest/?{query}", upload.content(), headers)
            if breaks_off_s is not None:
                time.sleep(breaks_off_s)  # the server may have answered by then; the answer is not read
                return Answer(Outcome.UNKNOWN, f"the client hung up after {breaks_off_s:.2f} s", retry_after_s=0)
            response = connection.getresponse()
            return self._answer(response, response.read())
        except (OSError, http.client.HTTPException) as error:
            return Answer(Outcome.UNKNOWN, f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    @staticmethod
    def _answer(response: http.client.HTTPResponse, body: bytes) -> Answer:
        detail = f"{response.status}"
        with suppress(ValueError):
            document = json.loads(body)
            if response.status == http.HTTPStatus.ACCEPTED:
                replayed = ", replayed" if response.headers["Idempotent-Replayed"] else ""
                return Answer(Outcome.ACKNOWLEDGED, f"{detail}{replayed}", document["job_id"])
            detail = f"{detail} {document['detail']}"
        is_final = 400 <= response.status < 500 and response.status != http.HTTPStatus.TOO_MANY_REQUESTS
        outcome = Outcome.REFUSED if is_final else Outcome.UNKNOWN
        return Answer(outcome, detail, retry_after_s=float(response.headers["Retry-After"] or BACKOFF_S))


class CommandClient(Client):
    """A client that runs `enqueue_ingest`, again if it fails without naming a job."""

    @property
    def folder(self) -> Path:
        """The folder of its files, which are kept."""
        return self.system.folder / "inputs"

    def send(self, upload: Upload, breaks_off_s: float | None) -> Answer:
        """Run the command; to abort it, send it the signal of Ctrl-C."""
        path = self.folder / f"{upload.file_name}{ENDINGS[upload.compression]}"
        if not path.exists():
            path.write_bytes(upload.content())
        options = [word for name, column in COLUMNS.items() for word in (f"--{name}", column)]
        options += ["--batch-rows", str(upload.batch_rows), *(["--spool"] if upload.into_spool else [])]
        process = self.system.begin("enqueue_ingest", str(path), *options)
        return self._answer(process, breaks_off_s)

    @staticmethod
    def _answer(process: "subprocess.Popen[str]", breaks_off_s: float | None) -> Answer:
        interrupted = ""
        try:
            printed, _ = process.communicate(timeout=COMMAND_TIMEOUT_S if breaks_off_s is None else breaks_off_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT if breaks_off_s is not None else signal.SIGKILL)
            interrupted = "interrupted: "
            try:
                printed, _ = process.communicate(timeout=INTERRUPTED_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                printed, _ = process.communicate()
        last = printed.strip().splitlines()[-1] if printed.strip() else "no output"
        detail = f"{interrupted}exit {process.returncode}: {last}"
        if match := JOB.search(printed):
            return Answer(Outcome.ACKNOWLEDGED, detail, int(match[1]))
        is_final = process.returncode == MISUSE
        return Answer(Outcome.REFUSED if is_final else Outcome.UNKNOWN, detail)


class Operator:
    """An operator that cancels recent jobs, and later retries them."""

    def __init__(self, system: System, orders: Iterator[Order], history: History, deadline: Deadline) -> None:
        self.system, self.orders, self.history, self.deadline = system, orders, history, deadline

    def run(self) -> None:
        """Cancel and retry jobs until the deadline."""
        for order in self.orders:
            if self.deadline.enough.wait(order.pause_s):
                return
            jobs = self.history.jobs() if order.action == "cancel" else self.history.jobs_asked("cancel")
            if recent := jobs[-RECENT_JOBS:]:
                self._ask(order.action, recent[int(order.chance * len(recent))])

    def _ask(self, action: str, job_id: int) -> None:
        """Cancel or retry a job; a command that fails may have succeeded nevertheless."""
        self.history.acted(action, job_id, f"exit {self.system.manage(f'{action}_ingest', str(job_id)).status}")
