"""How things stand, for several tasks that ask at once."""

from collections.abc import Awaitable, Callable

import trio


class SharedLook:
    """Looks, one at a time, each for all who asked before it began: who asks during one is answered by the next."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self._looking = trio.Lock()
        self._begun = 0
        self._ended = 0  # the latest that was neither cancelled nor has failed, of those that were begun

    async def wait(self) -> None:
        """Return once a look has ended that began after this was asked for.

        Raises what it raises to whoever began it. For others that look is none, as it is when that one is cancelled:
        one of them begins the next.
        """
        asked = self._begun
        async with self._looking:
            if self._ended <= asked:
                self._begun += 1
                await self._look()
                self._ended = self._begun  # not before: until then nobody knows that it comes to its end
