"""A client that is asked to end: what it does is cancelled, so that all it has open is closed, and then it leaves.

An exception out of a signal's handler would be raised wherever the event loop happens to be, and break that.
"""

import sys
from collections.abc import Awaitable, Callable

import trio

from service.platform.process.end import leave
from service.platform.process.start import ECHO, ending_signals


async def until_asked[T](run: Callable[[], Awaitable[T]]) -> T:
    """Return what `run` returns; a signal that asks the process to end cancels it, and the process exits with 128 + n.

    A second one, later than an echo of the first, ends the process at once.
    """
    asked: list[tuple[int, float]] = []
    scope = trio.CancelScope()

    async def obey() -> None:
        async for number in signals:
            now = trio.current_time()
            if not asked:
                asked.append((number, now))
                scope.cancel()
            elif now - asked[0][1] > ECHO:
                leave(128 + number)

    with trio.open_signal_receiver(*ending_signals()) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey)
            failure: Exception | None = None
            try:
                with scope:  # in here, so that what fails beside a cancel is without the cancel's own part
                    result = await run()
            except Exception as error:  # handed on below, as it is and not in the nursery's group
                failure = error
            nursery.cancel_scope.cancel()
    if asked:
        sys.exit(128 + asked[0][0])
    if failure is not None:
        raise failure
    return result
