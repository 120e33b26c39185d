"""`manage.py revoke_token`: revoke a token of the HTTP API."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from api.tokens import revoke_token
from poolhouse.display.reasons import ReasonCommand


class Command(ReasonCommand):
    """Revoke a token with `api.tokens.revoke_token`."""

    help = "Revoke the valid bearer token of an owner, so that the HTTP API refuses it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the owner's name."""
        parser.add_argument("name", metavar="NAME", help="name of the token's owner")

    def handle(self, *args: Any, **options: Any) -> None:
        """Revoke the token, or fail if there is none."""
        if not revoke_token(options["name"]):
            raise CommandError(f"{options['name']!r} has no valid token", returncode=2)
        self.stdout.write(f"revoked the token of {options['name']!r}")
