"""A balancer in front of replicas, as plain as can be: bytes in turn to whichever of its ports answers."""

import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio


@dataclass
class Balancer:
    """Passes connections on to `ports`, which a test may change while it runs.

    With a `prefix` it is a proxy that has the service under that path alone: it strips it, and all else is not there.
    """

    ports: list[int]
    prefix: str = ""
    url: str = ""
    _turn: int = 0
    _ready: threading.Event = field(default_factory=threading.Event)
    _token: trio.lowlevel.TrioToken | None = None
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def serve(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
                self._token = trio.lowlevel.current_trio_token()
                self._ready.set()
                await trio.serve_listeners(self._pass_on, [listener], handler_nursery=nursery)

    async def _pass_on(self, client: trio.SocketStream) -> None:
        async with client:
            for _ in self.ports:
                self._turn += 1
                try:
                    replica = await trio.open_tcp_stream("127.0.0.1", self.ports[self._turn % len(self.ports)])
                except OSError:
                    continue
                async with replica, trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, client, replica, nursery.cancel_scope, self.prefix.encode())
                    nursery.start_soon(_pump, replica, client, nursery.cancel_scope)
                return

    def stop(self) -> None:
        assert self._token is not None
        trio.from_thread.run_sync(self._scope.cancel, trio_token=self._token)


async def _pump(
    source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope, prefix: bytes = b""
) -> None:
    try:
        async for data in source:
            await sink.send_all(_stripped(bytes(data), prefix) if prefix else data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # one side is gone, and the other is about to be told
    both.cancel()


def _stripped(data: bytes, prefix: bytes) -> bytes:
    """Return what a browser sends, which begins with a request's line where it begins a request."""
    method, space, target = data.partition(b" ")
    if not re.fullmatch(rb"[A-Z]+", method):
        return data
    return method + space + (target.removeprefix(prefix) if target.startswith(prefix + b"/") else b"/outside" + target)


@asynccontextmanager
async def balancing(*ports: int) -> AsyncIterator[Balancer]:
    """Run a balancer beside the test's own tasks."""
    balancer = Balancer(list(ports))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(balancer.serve)
        while not balancer.url:
            await trio.sleep(0.01)
        yield balancer
        nursery.cancel_scope.cancel()


@contextmanager
def balanced(*ports: int, prefix: str = "") -> Iterator[Balancer]:
    """Run a balancer in a thread of its own: the browser's driver has this one."""
    balancer = Balancer(list(ports), prefix)
    thread = threading.Thread(target=trio.run, args=(balancer.serve,))
    thread.start()
    assert balancer._ready.wait(5)
    try:
        yield balancer
    finally:
        balancer.stop()
        thread.join(5)
