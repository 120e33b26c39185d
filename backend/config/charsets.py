"""Charsets from a client's Content-Type: unknown names are not cached, and the URL is always UTF-8."""

import codecs
import encodings
import pkgutil
from encodings.aliases import aliases
from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

KNOWN = {*aliases, *aliases.values(), *(module.name for module in pkgutil.iter_modules(encodings.__path__))}


def bound_codec_search() -> None:
    """Make Python search only for codecs that exist.

    Its own search caches every name that it is asked for, so clients that send ever new names would fill the memory.
    """
    codecs.unregister(encodings.search_function)
    codecs.unregister(_search)
    codecs.register(_search)


def _search(name: str) -> codecs.CodecInfo | None:
    return encodings.search_function(name) if name.replace(".", "_") in KNOWN else None


class Utf8Request(WSGIRequest):
    """A request whose URL and forms are UTF-8, whatever charset its Content-Type declares.

    Django decodes the URL with the charset of the body, and raises if that is not a text encoding, such as rot13.
    """

    @property
    def encoding(self) -> None:
        """Return None, which Django takes as UTF-8."""

    @encoding.setter
    def encoding(self, charset: object) -> None: ...

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
        except ValueError:  # a parameter in RFC 2231 encoding that cannot be decoded
            self.content_type, self.content_params = "", {}


class Handler(WSGIHandler):
    """Django's handler with `Utf8Request`."""

    request_class = Utf8Request
