"""Objects that are counted for as long as anybody refers to them."""

from collections.abc import Iterator
from typing import Generic, TypeVar
from weakref import ref

T = TypeVar("T")


class Alive(Generic[T]):
    """A set that keeps nothing alive.

    An object leaves it with its last reference, in one call of the interpreter's own (`set.discard`): there is no
    Python code in between, as there is in WeakSet, that a signal, a greenlet's timeout or the collector could stop.
    """

    __slots__ = ("_refs",)

    def __init__(self) -> None:
        self._refs: set[ref[T]] = set()

    def add(self, one: T) -> None:
        """Count an object from now on."""
        self._refs.add(ref(one, self._refs.discard))

    def discard(self, one: T) -> None:
        """Count it no longer; that may be said more than once."""
        self._refs.discard(ref(one))

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[T]:
        return iter([one for found in list(self._refs) if (one := found()) is not None])
