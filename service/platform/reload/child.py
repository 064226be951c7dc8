"""The child's side of the loop: what it asks its parent for, and what it tells it."""

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from service.platform.process.addresses import Urls
from service.platform.process.stage import Stage
from service.platform.reload.channel import Channel

# Modules of these are no package that could be loaded ahead: one's own code, and the interpreter's own names.
_NOT_AHEAD = ("service", "migrations", "__main__", "__mp_main__", "sitecustomize", "usercustomize")


class NotSupplied(Exception):
    """The parent could not give what was asked for; the message says why, and what to do."""


class Child:
    """One per process that runs under a parent. What it asks for blocks until it is answered."""

    def __init__(self, descriptor: int) -> None:
        # Ctrl-C reaches us as well, and that the terminal goes; the parent says what they mean for us.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._channel = Channel(descriptor)
        self.is_ready = False

    def stage(self, *, takes_over: bool) -> Stage:
        return Stage(self.open_listener, ends_at=(signal.SIGTERM,), shared=True, takes_over=takes_over)

    def database(self) -> str:
        """Return the address of the development database's server. Raises NotSupplied."""
        return self._ask("database")

    def provider(self) -> str:
        """Return the address of an identity provider. Raises NotSupplied."""
        return self._ask("provider")

    def open_listener(self, field: str, address: str) -> socket.socket:
        """Return the socket that every child accepts on. Raises OSError as the parent got it."""
        answer, descriptors = self._channel.ask("listener", field=field, address=address)
        if not descriptors:
            raise OSError(answer["number"], answer["error"])
        return socket.socket(fileno=descriptors[0])

    def tell_ready(self, urls: Urls, drain_bound: float) -> None:
        self.is_ready = True
        ahead = [name for name in sys.modules if name.partition(".")[0] not in _NOT_AHEAD]
        self._channel.tell(
            ready=True, public=urls.public, management=urls.management, drain_bound=drain_bound, ahead=ahead
        )

    @contextmanager
    def terminal(self) -> Iterator[None]:
        """Have the terminal for a prompt: the parent neither ends nor replaces us meanwhile."""
        self._channel.ask("terminal")
        try:
            yield
        finally:
            self._channel.tell(terminal=False)

    def _ask(self, want: str) -> str:
        answer, _ = self._channel.ask(want)
        if reason := answer.get("error"):
            raise NotSupplied(reason)
        value: str = answer["value"]
        return value
