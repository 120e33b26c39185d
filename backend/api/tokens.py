"""Bearer tokens: RFC 6750. They are random and long, so a plain hash keeps them; nobody can guess at 256 bits."""

import hashlib
import secrets

from django.db import IntegrityError, transaction
from django.utils import timezone

from api.models import ApiToken

PREFIX = "poolhouse_"  # so that a scanner for leaked secrets can know one


class TokenExistsError(Exception):
    """A name that has a valid token already."""


def create_token(name: str) -> str:
    """Make a token; it is shown this once.

    Raises:
        TokenExistsError: there is a valid one of that name.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        with transaction.atomic():
            ApiToken.objects.create(name=name, digest=_digest(token))
    except IntegrityError:
        raise TokenExistsError(f"{name!r} has a token; revoke_token {name} makes room for another") from None
    return token


def revoke_token(name: str) -> bool:
    """Let the token of that name be valid no more; False if there is none."""
    return bool(ApiToken.objects.filter(name=name, revoked_at=None).update(revoked_at=timezone.now()))


def find_token(token: str) -> ApiToken | None:
    """Give the record of a valid token."""
    return ApiToken.objects.filter(digest=_digest(token), revoked_at=None).first()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
