"""One request, or one websocket, between the task that reads the socket and the task that runs the app.

What the peer sent and the app has not taken yet is bounded here; beyond that the reader waits, and TCP holds the rest
back. When the peer is gone the app is cancelled here, so that no task of the framework has to wait for that.
"""

from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from service.platform.failures import forget_frames

# One message is always taken, so these bound what waits to them and one message more.
MAX_MESSAGES = 64
MAX_BYTES = 131_072


class Exchange:
    """An inbox with a bound, and the scope in which the app runs.

    `invite` is called once, when the app first waits for a client that wants to be asked for its body.
    """

    invite: Callable[[], Awaitable[None]] | None = None

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._messages: list[tuple[ASGIReceiveEvent, int]] = []  # mostly empty: a deque takes 700 bytes then
        self._bytes = 0
        self._last: ASGIReceiveEvent | None = None
        self._arrived: trio.Event | None = None  # of whoever waits for it
        self._taken: trio.Event | None = None

    async def __call__(self, message: ASGIReceiveEvent) -> None:
        """Hand a message to the app; waits while too much is waiting, and not a checkpoint otherwise."""
        while not self.put_nowait(message):
            self._taken = trio.Event()
            await self._taken.wait()

    def put_nowait(self, message: ASGIReceiveEvent) -> bool:
        """Hand a message to the app unless too much is waiting; True as well when it will take no more."""
        size = _size(message)
        if self._last is None:
            if self._is_full(size):
                return False
            self._messages.append((message, size))
            self._bytes += size
            self._tell(self._arrived)
        return True

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message; after `close`, and what had come before it, the last one again and again."""
        if self.invite is not None:
            invite, self.invite = self.invite, None
            await invite()
        if not self._messages and self._last is None:
            self._arrived = trio.Event() if self._arrived is None or self._arrived.is_set() else self._arrived
            await self._arrived.wait()
        while not self._messages:
            if self._last is not None:
                await trio.lowlevel.checkpoint()  # an app that asks again and again must not stop the others
                return self._last
            if self._arrived is None or self._arrived.is_set():  # another task has taken what woke us
                self._arrived = trio.Event()
            await self._arrived.wait()
        message, size = self._messages.pop(0)
        self._bytes -= size
        self._tell(self._taken)
        return message

    def close(self, last: ASGIReceiveEvent) -> None:
        """Let the app take what is waiting, and then `last`. What the reader still hands over is dropped."""
        if self._last is None:
            self._last = last
            self._tell(self._arrived)
            self._tell(self._taken)

    async def run(
        self, app: AppWrapper, config: Config, scope: Scope, send: Callable[[ASGISendEvent | None], Awaitable[None]]
    ) -> None:
        """Run the app for this exchange; ends quietly when `self.scope` is cancelled."""
        passing: BaseException | None = None
        with self.scope:
            try:
                await app(scope, self.receive, send, _refuse_thread, _refuse_thread)
            except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                if isinstance(error, BaseExceptionGroup) and error.split(trio.Cancelled)[1] is None:
                    passing = error
                    raise
                await config.log.exception("an application failed outside of the framework")
                forget_frames(error)
            finally:
                scope["extensions"].clear()  # type: ignore[typeddict-item]  # a websocket's stream has the scope, and is in it
                await send(None)  # noqa: ASYNC102  Hypercorn's sign that the application has ended; the outbox bounds it
        if passing is not None:
            forget_frames(passing)

    @staticmethod
    def _tell(waited_for: trio.Event | None) -> None:
        if waited_for is not None:
            waited_for.set()

    def _is_full(self, size: int) -> bool:
        if not self._messages:
            return False
        return len(self._messages) >= MAX_MESSAGES or self._bytes + size > MAX_BYTES


def _size(message: Any) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")


class ConnectionTasks(TaskGroup):
    """Hypercorn's task group of a connection, whose apps run in an Exchange instead of behind a channel."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        return self.start_app(app, config, scope, send)

    def start_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Exchange:
        exchange = Exchange()
        self.spawn(exchange.run, app, config, scope, send)
        return exchange

    def start_soon(self, function: Callable[[], Any]) -> None:
        """Start a task of the connection's, which works for no request: nor for the one of another that began it."""
        Context().run(self.spawn, function)


def _refuse_thread(*_: object, **__: object) -> Any:
    """Stand in for what Hypercorn hands to WSGI applications, which `serve` does not take."""
    raise RuntimeError("an ASGI application runs in the event loop")
