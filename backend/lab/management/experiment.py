"""An experiment as a Django command, which is replaced by `python -m lab` with servers of its own."""

import os
import sys
from typing import Any, ClassVar, NoReturn

from django.core.management.base import BaseCommand, CommandError

from config.env import CHECKOUT


class ExperimentCommand(BaseCommand):
    """A command with the options of its experiment."""

    experiment: ClassVar[str]
    requires_system_checks = []

    def run_from_argv(self, argv: list[str]) -> NoReturn:
        """Replace this process by the experiment, with all arguments after the command's name."""
        if not (CHECKOUT / "sandbox").is_dir():
            raise CommandError(
                f"{self.experiment} starts servers of its own: run it in a checkout, with bubblewrap installed"
            )
        os.chdir(CHECKOUT)
        os.execv(sys.executable, [sys.executable, "-m", "lab", self.experiment, *argv[2:]])  # noqa: S606 - our own module

    def handle(self, *arguments: Any, **options: Any) -> NoReturn:
        """Start the experiment when the command is called from Python."""
        self.run_from_argv(["", "", *arguments])
