"""Charsets that clients name: they neither stay in memory nor change how an address is read."""

import codecs
import encodings
import pkgutil
from encodings.aliases import aliases
from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

KNOWN = {*aliases, *aliases.values(), *(module.name for module in pkgutil.iter_modules(encodings.__path__))}


def bound_codec_search() -> None:
    """Have Python search only for the codecs that it has.

    Its own search remembers every name that it was asked for. Clients may name as many charsets as they like.
    """
    codecs.unregister(encodings.search_function)
    codecs.unregister(_search)
    codecs.register(_search)


def _search(name: str) -> codecs.CodecInfo | None:
    return encodings.search_function(name) if name.replace(".", "_") in KNOWN else None


class Utf8Request(WSGIRequest):
    """A request whose address and forms are UTF-8, whatever its Content-Type says of the body.

    Django takes the charset of the body for that of the address, and raises where it is not one of text, such as rot13.
    """

    @property
    def encoding(self) -> None:
        """None: UTF-8."""

    @encoding.setter
    def encoding(self, charset: object) -> None: ...

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
        except ValueError:  # a parameter in the notation of RFC 2231 that cannot be decoded
            self.content_type, self.content_params = "", {}


class Handler(WSGIHandler):
    """Django's, with these requests."""

    request_class = Utf8Request
