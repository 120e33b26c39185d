"""The checker of `scripts/bench chaos`, on made-up histories: what it must find, and what is allowed."""

from dataclasses import replace

import pytest

from lab.chaos.checker import Counts, Problem, Verdict, check, check_waiting
from lab.chaos.found import Batch, Found, Reject
from lab.chaos.history import Act, Attempt, Fault, History, Outcome
from lab.chaos.payload import Upload
from lab.chaos.report import explain

UPLOAD = Upload(
    name="http-0-0",
    day=1,
    rows=10,
    bad=((3, "time"), (7, "number")),
    format="csv",
    compression="",
    batch_rows=5,
    pause_s=0,
)
COMMAND = replace(UPLOAD, name="cli-0-0")
LOCATION = "spool:files/a.csv"
FIRST = Batch(1, 11, "http-0-0.csv", LOCATION, "done", 5, 4, 0, 1, "", 100.0, 110.0)
SECOND = replace(FIRST, batch_id=2)
REJECTS = [Reject(5, "soon,http-0-0,1"), Reject(9, "2024-01-01T00:00:00Z,http-0-0,many")]
FOUND = Found((FIRST, SECOND), {"http-0-0": UPLOAD.good}, rejects={11: REJECTS})


def history_of(*outcomes: Outcome | int, upload: Upload = UPLOAD) -> History:
    """An upload that was sent once for each outcome; a number is the job of an acknowledgement."""
    history = History()
    history.begin(upload)
    for number, outcome in enumerate(outcomes):
        job_id = None if isinstance(outcome, Outcome) else outcome
        known = outcome if isinstance(outcome, Outcome) else Outcome.ACKNOWLEDGED
        history.attempted(Attempt(upload.name, 100.0 + number, 100.5 + number, known, "", job_id))
    return history


def of_command(found: Found) -> Found:
    """The same, sent with the command."""
    batches = tuple(replace(batch, file_name=batch.file_name.replace("http", "/in/cli")) for batch in found.batches)
    rejects = {
        job: [Reject(each.line, each.raw.replace("http", "cli")) for each in listed]
        for job, listed in found.rejects.items()
    }
    return replace(found, batches=batches, readings={"cli-0-0": found.readings["http-0-0"]}, rejects=rejects)


def rules(verdict: Verdict) -> set[str]:
    return {problem.rule for problem in verdict.problems}


def waiting(state: str, error: str = "") -> Found:
    """Its second batch, rows 5 to 9, is not loaded."""
    second = replace(SECOND, state=state, error=error, inserted=0, rejected=0, finished_s=None)
    loaded = {"http-0-0": UPLOAD.good - set(range(5, 10))}
    return Found((FIRST, second), loaded, rejects={11: REJECTS[:1]}, spooled=frozenset({LOCATION}))


def test_what_was_acknowledged_and_is_loaded_or_rejected_is_all_right() -> None:
    verdict = check(history_of(11), FOUND)
    assert verdict == Verdict(Counts(10, 8, 2, 0, 0), {"acknowledged": 1}, 0, [])


def test_an_acknowledgement_counts_whatever_was_answered_before() -> None:
    assert check(history_of(Outcome.UNKNOWN, 11), FOUND).rows == Counts(10, 8, 2, 0, 0)


def test_a_row_that_is_neither_loaded_nor_rejected_is_lost() -> None:
    verdict = check(history_of(11), replace(FOUND, readings={"http-0-0": UPLOAD.good - {4}}))
    assert (verdict.rows, rules(verdict)) == (Counts(10, 7, 2, 0, 1), {"lost", "ledger"})
    assert Problem("lost", "http-0-0", "1 of 10 rows are missing; not loaded: 4") in verdict.problems


def test_a_job_that_was_acknowledged_and_is_not_recorded_is_lost() -> None:
    verdict = check(history_of(11), Found((), {}))
    assert (verdict.rows, rules(verdict)) == (Counts(10, 0, 0, 0, 10), {"lost"})


@pytest.mark.parametrize("state", ["queued", "parked", "cancelled"])
def test_rows_of_a_batch_that_is_not_done_wait(state: str) -> None:
    verdict = check(history_of(11), waiting(state, "why"))
    assert (verdict.rows, verdict.problems) == (Counts(10, 4, 1, 5, 0), [])


def test_rows_of_a_batch_whose_input_is_gone_are_lost() -> None:
    verdict = check(history_of(11), replace(waiting("parked", "no such file"), spooled=frozenset()))
    assert (verdict.rows, rules(verdict)) == (Counts(10, 4, 1, 0, 5), {"lost"})


def test_a_batch_that_waits_does_not_account_for_more_rows_than_it_has() -> None:
    found = waiting("queued", "why")
    verdict = check(history_of(11), replace(found, readings={"http-0-0": frozenset({0, 1})}))
    assert (verdict.rows, "lost" in rules(verdict)) == (Counts(10, 2, 1, 5, 2), True)


def test_rows_of_an_upload_whose_outcome_is_unknown_may_be_loaded_or_not() -> None:
    loaded = check(history_of(Outcome.UNKNOWN), FOUND)
    assert (loaded.uploads, loaded.indeterminate_rows, loaded.problems) == ({"unknown": 1}, 8, [])
    assert check(history_of(Outcome.UNKNOWN), Found((), {})).problems == []
    assert check(history_of(), Found((), {})).uploads == {"unknown": 1}, (
        "its client was interrupted in its first attempt"
    )


def test_a_good_upload_may_not_be_refused_and_what_is_refused_may_not_be_loaded() -> None:
    assert rules(check(history_of(Outcome.REFUSED), Found((), {}))) == {"refused"}
    assert rules(check(history_of(Outcome.REFUSED), FOUND)) == {"refused", "refused and loaded"}


def test_two_jobs_of_one_key_are_a_doubled_upload() -> None:
    again = tuple(replace(batch, job_id=12, inserted=0, skipped=4) for batch in FOUND.batches)
    found = replace(FOUND, batches=FOUND.batches + again, rejects={11: REJECTS, 12: REJECTS})
    for history in (history_of(11), history_of(11, 12), history_of(Outcome.UNKNOWN, 11)):
        assert rules(check(history, found)) == {"doubled"}


def test_readings_that_were_there_already_are_doubled() -> None:
    found = replace(
        FOUND, batches=(replace(FIRST, inserted=3, skipped=1), SECOND), readings={"http-0-0": UPLOAD.good - {0}}
    )
    assert "doubled" in rules(check(history_of(11), found))


def test_a_command_that_was_run_again_may_have_made_two_jobs_of_which_one_found_its_readings_there() -> None:
    again = tuple(replace(batch, job_id=12, inserted=0, skipped=4) for batch in FOUND.batches)
    found = of_command(replace(FOUND, batches=FOUND.batches + again, rejects={11: REJECTS, 12: REJECTS}))
    assert check(history_of(Outcome.UNKNOWN, 12, upload=COMMAND), found).problems == []
    assert rules(check(history_of(12, upload=COMMAND), found)) == {"doubled"}, "it was run once"


def test_a_ledger_that_counts_more_than_is_loaded_does_not_add_up() -> None:
    found = of_command(replace(FOUND, batches=(*FOUND.batches, replace(SECOND, job_id=12, batch_id=3))))
    assert "ledger" in rules(check(history_of(Outcome.UNKNOWN, 11, upload=COMMAND), found))


def test_a_job_that_is_done_with_other_counts_than_its_file_does_not_add_up() -> None:
    found = replace(FOUND, batches=(FIRST, replace(SECOND, rows=4)))
    assert rules(check(history_of(11), found)) == {"ledger"}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (REJECTS[:1], {"rejects", "lost"}),
        ([*REJECTS, REJECTS[0]], {"rejects"}),
        ([REJECTS[0], Reject(9, "another text")], {"rejects"}),
        ([*REJECTS, Reject(4, "a good row")], {"rejects"}),
    ],
    ids=["missing", "twice", "altered", "good"],
)
def test_every_bad_row_is_listed_once_as_it_was_sent(listed: list[Reject], expected: set[str]) -> None:
    assert rules(check(history_of(11), replace(FOUND, rejects={11: listed}))) == expected


def test_rejects_that_cannot_be_read_are_a_problem() -> None:
    verdict = check(history_of(11), replace(FOUND, unreadable={11: "IncompleteRead"}))
    assert Problem("rejects", "http-0-0", "the rejects of job 11 cannot be read: IncompleteRead") in verdict.problems


def test_a_reading_that_no_client_sent_is_a_problem() -> None:
    bad_row = replace(FOUND, readings={"http-0-0": UPLOAD.good | {3}})
    assert "not sent" in rules(check(history_of(11), bad_row))
    stranger = replace(FOUND, readings={**FOUND.readings, "http-9-9": frozenset({1})})
    assert check(history_of(11), stranger).problems == [
        Problem("not sent", "http-9-9", "no client sent an upload of this name")
    ]
    altered = replace(FOUND, readings={"http-0-0": UPLOAD.good - {4}}, altered={"http-0-0": ["5 at 4 s"]})
    assert {"not sent", "lost"} <= rules(check(history_of(11), altered))


def test_the_spool_has_nothing_but_what_waits_needs() -> None:
    rejects = "spool:rejects/11/1.ndjson"
    done = replace(FOUND, spooled=frozenset({LOCATION, rejects, "spool:rejects/99/1.ndjson"}))
    assert [(problem.rule, problem.subject) for problem in check(history_of(11), done).problems] == [
        ("orphan", LOCATION),
        ("orphan", "spool:rejects/99/1.ndjson"),
    ]
    needed = replace(waiting("parked", "why"), spooled=frozenset({LOCATION, rejects}))
    assert check(history_of(11), needed).problems == []


def problems_of(batch: Batch, history: History, spooled: frozenset[str] = frozenset({LOCATION})) -> set[str]:
    return {problem.rule for problem in check_waiting(history, [FIRST, batch], spooled, max_attempts=2)}


def test_a_batch_that_waits_says_why() -> None:
    history = history_of(11)
    queued = replace(SECOND, state="queued", finished_s=None)
    assert problems_of(queued, history) == {"waits without a reason"}
    assert problems_of(replace(queued, error="the server is away"), history) == set()
    assert problems_of(replace(queued, state="parked"), history) == {"waits without a reason"}
    assert problems_of(replace(queued, state="cancelled"), history) == {"waits without a reason"}
    history.acts.append(Act(105.0, "cancel", 11, "asked"))
    assert problems_of(replace(queued, state="cancelled"), history) == set()


def test_a_batch_that_waits_for_an_input_that_is_gone_can_never_be_loaded() -> None:
    for state in ("queued", "parked", "cancelled"):
        batch = replace(SECOND, state=state, error="no such file")
        assert problems_of(batch, history_of(11), frozenset()) == {"input deleted"}
    outside = replace(SECOND, state="queued", error="no such file", location="/in/a.csv")
    assert problems_of(outside, history_of(11), frozenset()) == set()


def test_a_fault_that_ends_by_itself_must_not_park_a_batch() -> None:
    parked = replace(SECOND, state="parked", error="the store refused the connection")
    assert problems_of(parked, history_of(11)) == {"parked for a passing fault"}


def test_a_batch_that_blames_killed_workers_has_seen_as_many_killed() -> None:
    history = history_of(11)
    parked = replace(
        SECOND,
        state="parked",
        error="2 attempts failed (INGEST_MAX_ATTEMPTS); the process of the last one was killed, for …",
    )
    kills = [Fault("worker child killed", "", at_s) for at_s in (99.0, 101.0, 111.0)]
    history.faults += [*kills, Fault("web killed", "", 102.0)]
    assert problems_of(parked, history) == {"false reason"}
    history.faults.append(Fault("whole worker killed", "", 109.0))
    assert problems_of(parked, history) == set()


def test_how_a_problem_came_about_is_told_in_order() -> None:
    history = history_of(Outcome.UNKNOWN, 11)
    history.faults += [Fault("web killed", "pid 7", 100.2), Fault("long before", "", 20.0, 30.0)]
    history.acts.append(Act(103.0, "cancel", 11, "asked"))
    told = list(explain(history, "http-0-0"))
    assert [line.split()[0] for line in told] == ["+0.0", "+0.2", "+1.0", "+3.0"]
    assert "fault: web killed (pid 7)" in told[1]
    assert "cancel of job 11" in told[3]
