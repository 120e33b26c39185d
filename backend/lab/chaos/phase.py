"""A phase: a system with one kind of spool, load with faults, then no faults, then the checker."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread

from config.env import Ingest, read
from lab.chaos import faults as kinds
from lab.chaos.checker import Problem, Verdict, check, check_waiting
from lab.chaos.clients import Client, CommandClient, Deadline, HttpClient, Operator
from lab.chaos.found import CANCELLED, COMMAND_PREFIX, DONE, PARKED, QUEUED, Batch, batches_of, read_back
from lab.chaos.history import Fault as Struck
from lab.chaos.history import History, Outcome
from lab.chaos.plan import Strike, command_uploads, http_uploads, orders, strikes
from lab.chaos.spools import Spool
from lab.chaos.system import INPUT_GRACE_S, Stopped, System

HTTP_CLIENTS, COMMAND_CLIENTS = 4, 2
TICK_S = 0.1
ACKNOWLEDGED_WITHIN_S = 120
"""time that clients have after the last fault; then they give up"""
CLIENTS_END_WITHIN_S = 300
STALLED_S = 120
"""the longest time without a finished batch; then the run stops waiting"""
DRAINED_WITHIN_S = 600
ASKED_AGAIN = 5
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The parameters of a phase."""

    seed: int
    duration_s: float
    kinds: Sequence[str]
    """kinds of faults to inject, if they are possible"""


@dataclass(frozen=True)
class Result:
    """The result of a phase."""

    history: History
    verdict: Verdict
    waiting: list[Batch]
    """batches that were not done after the last fault, before they were retried"""
    waiting_problems: list[Problem]
    left: list[Batch]
    """batches that were not done at the end"""
    duration_s: float

    @property
    def problems(self) -> list[Problem]:
        """All problems of the phase."""
        return [*self.waiting_problems, *self.verdict.problems]


class Phase:
    """The load and the faults on one system."""

    def __init__(self, plan: Plan, system: System, spool: Spool, say: Say) -> None:
        self.plan, self.system, self.spool, self.say = plan, system, spool, say
        self.history = History()
        self.deadline = Deadline()
        self.begun_s = time.monotonic()
        self._failures: list[Exception] = []
        self._active: list[tuple[float, kinds.Fault, Struck]] = []

    def run(self) -> Result:
        """Run load and faults, end all faults, wait until every job is finished, and check.

        Raises:
            RuntimeError, SandboxError: the experiment itself failed.
        """
        token = self._ask("create_token", "chaos").split()[-1]
        clients = self._clients(token)
        threads = [Thread(target=self._guard, args=(client.run,), daemon=True) for client in clients]
        self.begun_s = time.monotonic()
        for thread in threads:
            thread.start()
        self._strike()
        self.deadline.enough.set()
        self._await_clients(threads)
        self._drain("waiting until every job is finished")
        waiting = [batch for batch in batches_of(self.system) if batch.state != DONE]
        problems = self._check_waiting(waiting)
        self._retry(waiting)
        left = [batch for batch in batches_of(self.system) if batch.state != DONE]
        known = {problem.batch_id for problem in problems}
        problems += [problem for problem in self._check_waiting(left) if problem.batch_id not in known]
        self.say("reading the final state")
        time.sleep(INPUT_GRACE_S)
        self._ask("clean_spool", "--older-than", "0")
        found = read_back(self.system, token, self.spool.locations())
        verdict = check(self.history, found)
        return Result(self.history, verdict, waiting, problems, left, time.monotonic() - self.begun_s)

    def _guard(self, run: Callable[[], None]) -> None:
        """Run a client, and keep its exception: a run with less load must not pass as a success."""
        try:
            run()
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - raised again by the main thread
            self._failures.append(error)

    def _clients(self, token: str) -> list[Client | Operator]:
        (self.system.folder / "inputs").mkdir()
        given = (self.history, self.deadline)
        clients: list[Client | Operator] = [Operator(self.system, orders(self.plan.seed), *given)]
        for number in range(HTTP_CLIENTS):
            client = HttpClient(self.system, http_uploads(self.plan.seed, f"http-{number}"), *given)
            client.token = token
            clients.append(client)
        for number in range(COMMAND_CLIENTS):
            clients.append(
                CommandClient(self.system, command_uploads(self.plan.seed, f"{COMMAND_PREFIX}{number}"), *given)
            )
        return clients

    def _strike(self) -> None:
        """Begin and end faults as scheduled; a fault waits while another one affects its target."""
        known, duration_s = kinds.faults_of(self.spool), self.plan.duration_s
        due = strikes(self.plan.seed, [kind for kind in known if kind in self.plan.kinds], duration_s)
        while (now_s := time.monotonic() - self.begun_s) < duration_s:
            self._heal(until_s=now_s)
            struck = {fault.target for _, fault, _ in self._active}
            ready = (strike for strike in due if strike.at_s <= now_s and known[strike.kind].target not in struck)
            if (strike := next(ready, None)) is not None:
                due.remove(strike)
                self._begin(known[strike.kind], strike)
            self.system.keep_up()
            self.say(self._progress(now_s, duration_s))
            time.sleep(TICK_S)
        self._heal(until_s=float("inf"))

    def _begin(self, kind: type[kinds.Fault], strike: Strike) -> None:
        fault, event = kind(self.system, self.spool, strike.chance), self.history.struck(strike.kind)
        event.detail = fault.begin()
        ends_s = time.monotonic() - self.begun_s + min(strike.lasts_s, fault.longest_s)
        self._active.append((ends_s, fault, event))

    def _heal(self, until_s: float) -> None:
        for item in [item for item in self._active if item[0] <= until_s]:
            _, fault, event = item
            fault.end()
            event.ended_s = time.time()
            self._active.remove(item)

    def _progress(self, now_s: float, duration_s: float) -> str:
        outcomes = list(self.history.outcomes().values())
        acknowledged = outcomes.count(Outcome.ACKNOWLEDGED)
        active = ", ".join(fault.kind for _, fault, _ in self._active if fault.longest_s) or "none"
        return (
            f"{now_s:.0f} of {duration_s:.0f} s, {len(self.history.faults)} faults, active: {active}; "
            f"{acknowledged} of {len(outcomes)} uploads acknowledged"
        )

    def _await_clients(self, threads: list[Thread]) -> None:
        """Wait while clients repeat the uploads that are not acknowledged yet."""
        begun_s = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            waited_s = time.monotonic() - begun_s
            if waited_s > ACKNOWLEDGED_WITHIN_S:
                self.deadline.give_up.set()
            if waited_s > CLIENTS_END_WITHIN_S:
                raise RuntimeError(f"clients did not end within {CLIENTS_END_WITHIN_S} s")
            self.system.keep_up()
            self.say("all faults are over; clients finish their last uploads")
            time.sleep(TICK_S)
        if self._failures:
            raise RuntimeError("a client failed for another reason than a fault") from self._failures[0]

    def _drain(self, label: str) -> None:
        """Wait until no batch is queued, at most STALLED_S after the last batch finished."""
        moved_s = begun_s = time.monotonic()
        seen = -1
        while True:
            self.system.keep_up()
            ((queued,),) = self.system.query(f"SELECT count(*) FROM ingest_batch WHERE state = '{QUEUED}'")  # noqa: S608 - a constant
            now_s = time.monotonic()
            if queued != seen:
                seen, moved_s = queued, now_s
            if not queued or now_s - moved_s > STALLED_S or now_s - begun_s > DRAINED_WITHIN_S:
                return
            self.say(f"{label}: {queued} batches queued")
            time.sleep(TICK_S)

    def _retry(self, waiting: list[Batch]) -> None:
        """Retry every parked or cancelled job; now that no fault is active, it must be loaded."""
        jobs = sorted({batch.job_id for batch in waiting if batch.state in (PARKED, CANCELLED)})
        for number, job_id in enumerate(jobs):
            self.say(f"retrying {len(jobs)} cancelled or parked jobs: {number} done")
            self._ask("retry_ingest", str(job_id))
        if jobs:
            self._drain("waiting for the retried jobs")

    def _check_waiting(self, batches: list[Batch]) -> list[Problem]:
        max_attempts = read(Ingest).ingest_max_attempts
        return check_waiting(self.history, batches, self.spool.locations(), max_attempts=max_attempts)

    def _ask(self, *arguments: str) -> str:
        """Run a command that must succeed; it is repeated, because a connection may still be broken."""
        for _ in range(ASKED_AGAIN):
            answer = self.system.manage(*arguments)
            if answer.status == 0:
                return answer.text
            self.system.keep_up()
            time.sleep(1)
        raise RuntimeError(f"manage.py {' '.join(arguments)} exited with status {answer.status}:\n{answer.text}")
