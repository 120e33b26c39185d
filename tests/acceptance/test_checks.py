"""`manage.py check --database default` beside the running stack."""

from dataclasses import replace

from tests.acceptance.conftest import Running, manage

CHECK = ("check", "--database", "default", "--fail-level", "WARNING")


def test_the_stack_passes_as_it_starts_and_not_with_more_processes_than_there_is_room_for(running: Running) -> None:
    answer = running.manage(*CHECK)
    assert "System check identified no issues" in answer.stdout
    more = replace(running.stack, variables={**running.stack.variables, "WEB_PROCESSES": "4"})
    answer = manage(more, *CHECK, check=False)
    assert answer.returncode != 0
    assert "(poolhouse.W004) The fleet can open 45 connections to 'default' (web 4 × 10, worker 3 × 1, beat 1 × 1" in (
        " ".join(answer.stderr.split())
    )
