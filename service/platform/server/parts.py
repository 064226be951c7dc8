"""The bodies of responses: whatever a view may iterate over, on Trio, and the part of a body that a Range asks for."""

from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from inspect import isgenerator
from typing import Any, cast

from quart.wrappers.response import DataBody, IOBody, IterableBody
from quart_trio.utils import run_sync_iterable
from quart_trio.wrappers.response import TrioFileBody


class Parts(IterableBody):
    """Quart's, whose own takes what is not async to a loop of asyncio's; Quart-Trio's takes no async class."""

    def __init__(self, iterable: AsyncIterable[Any] | Iterable[Any]) -> None:
        if isinstance(iterable, AsyncIterable):
            self.iter = aiter(iterable)
        elif isgenerator(iterable):  # it may block
            self.iter = run_sync_iterable(cast(Generator[Any], iterable))
        else:
            self.iter = _each(iterable)


class Whole(DataBody):
    """Quart's, which takes the last ten bytes for those behind the place -10: such a request is a 500."""

    async def make_conditional(self, begin: int, end: int | None) -> int:
        return await super().make_conditional(*_within(len(self.data), begin, end))


class Buffer(IOBody):
    """Quart's, of a `BytesIO`, which does the same."""

    async def make_conditional(self, begin: int, end: int | None) -> int:
        return await super().make_conditional(*_within(self.size, begin, end))


class File(TrioFileBody):
    """Quart-Trio's, which also promises bytes behind the end, for `bytes=0-65535` of a small file."""

    async def make_conditional(self, begin: int, end: int | None, max_partial_size: int | None = None) -> int:
        return await super().make_conditional(*_within(self.size, begin, end), max_partial_size)


def _within(size: int, begin: int, end: int | None) -> tuple[int, int]:
    """Return the bounds of a range in a body of this size; a negative begin counts from its end (RFC 9110, 14.1.2)."""
    return max(0, size + begin) if begin < 0 else begin, size if end is None else min(size, end)


async def _each(parts: Iterable[Any]) -> AsyncIterator[Any]:
    for part in parts:
        yield part
