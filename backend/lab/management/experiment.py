"""An experiment as a Django command: it gives way to `python -m lab`, which has servers of its own."""

import os
import sys
from typing import Any, ClassVar, NoReturn

from django.core.management.base import BaseCommand, CommandError

from config.env import CHECKOUT


class ExperimentCommand(BaseCommand):
    """A command whose options are the experiment's."""

    experiment: ClassVar[str]
    requires_system_checks = []

    def run_from_argv(self, argv: list[str]) -> NoReturn:
        """Start the experiment in this process's stead, with everything behind the command's name."""
        if not (CHECKOUT / "sandbox").is_dir():
            raise CommandError(
                f"{self.experiment} starts servers of its own, which needs a checkout and bubblewrap: run it there"
            )
        os.chdir(CHECKOUT)
        os.execv(sys.executable, [sys.executable, "-m", "lab", self.experiment, *argv[2:]])  # noqa: S606 - our own module

    def handle(self, *arguments: Any, **options: Any) -> NoReturn:
        """Start it when it is called from Python."""
        self.run_from_argv(["", "", *arguments])
