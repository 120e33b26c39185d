"""`manage.py create_token`: a token for the HTTP API."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from api.tokens import TokenExistsError, create_token
from poolhouse.display.reasons import ReasonCommand


class Command(ReasonCommand):
    """A door to `api.tokens.create_token`."""

    help = "Make a bearer token for the HTTP API and print it, this once: only its hash is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("name", metavar="NAME", help="whose it is")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        try:
            self.stdout.write(create_token(options["name"]))
        except (TokenExistsError, ValueError) as error:
            raise CommandError(str(error), returncode=2) from None
