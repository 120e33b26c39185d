"""`manage.py create_token`: create a token for the HTTP API."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from api.tokens import TokenExistsError, create_token
from poolhouse.display.reasons import ReasonCommand


class Command(ReasonCommand):
    """Create a token with `api.tokens.create_token`."""

    help = "Create a bearer token for the HTTP API and print it. It cannot be shown again: only its hash is stored."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the owner's name."""
        parser.add_argument("name", metavar="NAME", help="name of the token's owner")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the new token."""
        try:
            self.stdout.write(create_token(options["name"]))
        except (TokenExistsError, ValueError) as error:
            raise CommandError(str(error), returncode=2) from None
