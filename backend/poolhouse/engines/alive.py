"""A set of weak references that counts objects for as long as they are referenced."""

from collections.abc import Iterator
from typing import Generic, TypeVar
from weakref import ref

T = TypeVar("T")


class Alive(Generic[T]):
    """A set that keeps nothing alive.

    An object leaves it with its last reference, in one call in C (`set.discard`). WeakSet would run Python code there,
    which a signal, a greenlet's timeout or the garbage collector could interrupt.
    """

    __slots__ = ("_refs",)

    def __init__(self) -> None:
        self._refs: set[ref[T]] = set()

    def add(self, one: T) -> None:
        """Add an object without keeping it alive."""
        self._refs.add(ref(one, self._refs.discard))

    def discard(self, one: T) -> None:
        """Remove an object; removing it twice is not an error."""
        self._refs.discard(ref(one))

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[T]:
        return iter([one for found in list(self._refs) if (one := found()) is not None])
