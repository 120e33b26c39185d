"""The base of the monitoring commands: once or repeatedly, as text or JSON, with an exit status."""

import json
from argparse import ArgumentParser
from typing import Any, Generic, TypeVar

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import localtime
from rich.console import Console, Group, RenderableType
from rich.text import Text

from poolhouse.arguments import number
from poolhouse.display.console import console_for
from poolhouse.display.live import repeat, watch
from poolhouse.display.reasons import message_of, reason_of
from poolhouse.driver import not_postgresql, postgresql_aliases
from poolhouse.overview.findings import LEVELS

INTERVAL_S = 2.0
INTERVAL_MIN_S = 0.1

Seen = TypeVar("Seen")


class MonitorCommand(BaseCommand, Generic[Seen]):
    """A command that takes a status and shows it; subclasses define the status and how it is drawn."""

    requires_system_checks: list[str] = []  # it must work when the database does not
    default_database = "all PostgreSQL databases"

    def look(self, **options: Any) -> Seen:
        """Query every source once, and return what is to be shown."""
        raise NotImplementedError

    def draw(self, seen: Seen, width: int, **options: Any) -> RenderableType:
        """Return the text for people, for a console of this width in columns."""
        raise NotImplementedError

    def document(self, seen: Seen) -> dict[str, Any]:
        """Return the JSON data for programs."""
        raise NotImplementedError

    def level(self, seen: Seen) -> str:
        """Return the level of the verdict, one of LEVELS."""
        raise NotImplementedError

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options that all monitoring commands have."""
        parser.add_argument(
            "--database", metavar="ALIAS", help=f"show only this database (default: {self.default_database})"
        )
        parser.add_argument(
            "--json", action="store_true", help="print everything as JSON; with --watch, one object per line"
        )
        parser.add_argument("--watch", action="store_true", help="repeat until Ctrl-C")
        parser.add_argument(
            "--interval",
            type=number(INTERVAL_MIN_S, unit="seconds"),
            default=INTERVAL_S,
            metavar="S",
            help=f"seconds between two updates of --watch (default: {INTERVAL_S:g})",
        )
        parser.add_argument(
            "--fail-on",
            choices=LEVELS[1:],
            help="exit with status 2 if the verdict is critical and, with `warning`, with status 1 if it is a warning",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Show the status, once or until Ctrl-C.

        Raises:
            CommandError: conflicting options, an unknown alias, or an error of the query itself.
            SystemExit: with --fail-on, if the verdict is that level or worse.
        """
        if options["watch"] and options["fail_on"]:
            raise CommandError("--fail-on cannot be combined with --watch", returncode=2)
        if (alias := options["database"]) is not None and alias not in postgresql_aliases():
            raise CommandError(f"--database: {not_postgresql(alias)}", returncode=2)
        try:
            self._look_and_show(options)
        except Exception as error:  # for a health check, Python's default status 1 would be a warning
            reason = (
                reason_of(error) or f"{type(error).__name__}: {message_of(error)} (run with --traceback for details)"
            )
            raise CommandError(reason, returncode=2) from error

    def _look_and_show(self, options: dict[str, Any]) -> None:
        console = console_for(self.stdout, no_color=options["no_color"])
        if options["watch"]:
            self._watch(console, options)
            return
        seen = self.look(**options)
        if options["json"]:
            self.stdout.write(json.dumps(self.document(seen), indent=2))
        else:
            console.print(self.draw(seen, console.width, **options))
        if options["fail_on"] and (status := exit_status(self.level(seen), options["fail_on"])):
            raise SystemExit(status)

    def _watch(self, console: Console, options: dict[str, Any]) -> None:
        if options["json"]:
            repeat(lambda: self._print_line(console, options), options["interval"])
        else:
            watch(lambda: self._draw_again(console, options), console, options["interval"])

    def _print_line(self, console: Console, options: dict[str, Any]) -> None:
        # The console ends without an error when its reader has closed the pipe.
        console.print(Text(json.dumps(self.document(self.look(**options)))), soft_wrap=True)

    def _draw_again(self, console: Console, options: dict[str, Any]) -> RenderableType:
        drawn = self.draw(self.look(**options), console.width, **options)
        how_to_end = "; Ctrl-C to quit" if console.is_terminal else ""
        head = f"{localtime():%Y-%m-%d %H:%M:%S %Z}, every {options['interval']:g} s{how_to_end}"
        return Group(Text(head, style="dim"), drawn)


def exit_status(level: str, fail_on: str) -> int:
    """Return 1 for a warning and 2 for critical if the level is `fail_on` or worse, else 0."""
    found = LEVELS.index(level)
    return found if found >= LEVELS.index(fail_on) else 0
