"""What the commands that need the database share."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from kombu.exceptions import OperationalError as BrokerError


class DatabaseCommand(BaseCommand):
    """A command that ends in one line and exit status 1 when the database or the broker is short of something."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command."""
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            raise CommandError(f"the database cannot be used: {one_line(error)}", returncode=1) from None
        except BrokerError as error:
            raise CommandError(f"the broker cannot be reached: {one_line(error)}", returncode=1) from None


def one_line(error: Exception) -> str:
    """Return the text of an error on one line; the server's hint says what to do, and its context does not help."""
    diagnosis = getattr(error.__cause__, "diag", None)
    primary, hint = getattr(diagnosis, "message_primary", None), getattr(diagnosis, "message_hint", None)
    text = f"{primary} ({hint})" if primary and hint else primary or str(error) or type(error).__name__
    return " ".join(text.split())
