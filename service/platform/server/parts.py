"""A body that comes part by part: whatever a view may iterate over, on Trio."""

from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from inspect import isgenerator
from typing import Any, cast

from quart.wrappers.response import IterableBody
from quart_trio.utils import run_sync_iterable


class Parts(IterableBody):
    """Quart's, whose own takes what is not async to a loop of asyncio's; Quart-Trio's takes no async class."""

    def __init__(self, iterable: AsyncIterable[Any] | Iterable[Any]) -> None:
        if isinstance(iterable, AsyncIterable):
            self.iter = aiter(iterable)
        elif isgenerator(iterable):  # it may block
            self.iter = run_sync_iterable(cast(Generator[Any], iterable))
        else:
            self.iter = _each(iterable)


async def _each(parts: Iterable[Any]) -> AsyncIterator[Any]:
    for part in parts:
        yield part
