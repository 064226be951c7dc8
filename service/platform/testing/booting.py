"""The whole service in the test's own process, as production starts it: main, on free ports, with a real database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from service.platform.feature import Feature
from service.platform.process.addresses import Urls
from service.platform.process.main import main
from service.platform.settings import PlatformSettings


class EndedAtOnce(Exception):
    """What `os._exit` would have done to a process of its own."""


@asynccontextmanager
async def booted(settings: PlatformSettings, features: Sequence[Feature]) -> AsyncIterator[Urls]:
    """Run main beside the block, and cancel it at the end."""
    ready = trio.Event()
    found: list[Urls] = []

    def on_ready(urls: Urls) -> None:
        found.append(urls)
        ready.set()

    def end(code: int) -> None:
        raise EndedAtOnce(code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(main, settings, features, end=end, on_ready=on_ready))
        with trio.fail_after(60):
            await ready.wait()
        yield found[0]
        nursery.cancel_scope.cancel()
