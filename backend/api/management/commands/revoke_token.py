"""`manage.py revoke_token`: take a token back."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from api.tokens import revoke_token
from poolhouse.display.reasons import ReasonCommand


class Command(ReasonCommand):
    """A door to `api.tokens.revoke_token`."""

    help = "Let the bearer token of that name be valid no more."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("name", metavar="NAME")

    def handle(self, *args: Any, **options: Any) -> None:
        """Revoke it."""
        if not revoke_token(options["name"]):
            raise CommandError(f"{options['name']!r} has no valid token", returncode=2)
        self.stdout.write(f"the token of {options['name']!r} is revoked")
