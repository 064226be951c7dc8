"""The parent: it starts a child at each save, and lets the old one drain once the new one is ready.

A child that fails leaves the old one serving, and one that ends by itself is started again. Sockets and database are
the parent's, so that no request notices; while no child can be had the sockets are closed: nobody waits in vain.
"""

import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from service.platform.errors import leaves
from service.platform.listener import open_listener
from service.platform.process.start import ECHO, ending_signals
from service.platform.reload.channel import Message
from service.platform.reload.colours import GREEN, YELLOW, line_of
from service.platform.reload.offspring import Answer, Offspring, start
from service.platform.reload.terminal import end_without_terminal, tidy_terminal
from service.platform.reload.watching import new_settings, saves

NAMED = 3  # of the files that were saved, so many are named
# Seconds until a child that has ended by itself is started again: twice as long each time, until one has lived long.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0

type Tell = Callable[[str], object]


class Parent:
    """Run the loop for one `service dev`. `answers` are what children may ask for, beside sockets and the terminal."""

    def __init__(
        self,
        arguments: Sequence[str],
        root: Path,
        answers: Mapping[str, Answer],
        *,
        tell: Tell,
        on_first: Callable[[Message], object],
        coloured: bool,
    ) -> None:
        self._arguments = arguments
        self._root = root
        self._answers = {"listener": self._give_listener, **answers}
        self._tell = tell
        self._on_first = on_first
        self._coloured = coloured
        self._listeners: dict[tuple[str, str], socket.socket] = {}
        self._closed: dict[tuple[str, str], str] = {}  # where those were that have been closed
        self._addresses: dict[str, str] = {}  # what each was asked for last
        self._children: list[Offspring] = []
        self._current: Offspring | None = None
        self._starting: Offspring | None = None
        self._has_served = False
        self._trying = False
        self._pause = 0.0
        self._spare: tuple[Offspring, int] | None = None
        self._saved: set[Path] = set()
        self._save = trio.Event()
        self._terminal = trio.Lock()

    async def run(self) -> int:
        """Return the exit code: that of the last child, or 128 + n after a second signal n."""
        async with trio.open_nursery() as self._nursery:
            with (
                trio.open_signal_receiver(*ending_signals()) as signals,
                trio.open_signal_receiver(signal.SIGUSR1) as questions,
                tidy_terminal(),
            ):
                self._nursery.start_soon(self._pass_on, questions)
                self._nursery.start_soon(end_without_terminal)
                self._nursery.start_soon(self._collect, saves(self._root))
                self._nursery.start_soon(self._collect, new_settings(Path.cwd()))
                code = await self._loop_until(signals)
                self._nursery.cancel_scope.cancel()
        return code

    async def _loop_until(self, signals: AsyncIterator[int]) -> int:
        code = 0
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                nonlocal code
                first = await anext(signals)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    code = await self._end(signal.Signals(first), signals)

            nursery.start_soon(end)
            code = await self._loop()
            nursery.cancel_scope.cancel()
        return code

    async def _loop(self) -> int:
        """Reload at each save. Returns only when the first start failed: with its exit code."""
        first = await self._try()
        if isinstance(first, int):
            return first
        self._on_first(first.told)
        while True:
            await self._save.wait()
            async with self._terminal:  # nobody is interrupted at a breakpoint
                pass
            await self._try()

    async def _try(self) -> Offspring | int:
        """Start a child, again at each save meanwhile. Returns it once it serves, or the exit code of a failure."""
        while True:
            names, began = self._take_saved(), time.monotonic()
            self._trying = True
            self._starting = child = await self._prepared()
            await child.say({"takes_over": self._current is not None})
            await first_of(child.ready.wait, child.ended.wait, self._save.wait)
            self._trying = False
            if child.ready.is_set():
                self._take_over(child, names, time.monotonic() - began)
                return child
            if child.ended.is_set():
                self._nursery.start_soon(self._prepare)
                self._tell_failed(child.code)
                return child.code
            async with self._terminal:  # it may be at a breakpoint
                pass
            await child.end()

    def _take_over(self, child: Offspring, names: str, seconds: float) -> None:
        if self._current is not None:
            self._nursery.start_soon(self._current.end)
        if names:
            self._say(GREEN, f"reloaded in {seconds:.1f} s: {names}")
        self._current, self._has_served = child, True
        for field, address in [key for key in self._listeners if self._addresses[key[0]] != key[1]]:
            self._listeners.pop((field, address)).close()  # the setting has changed
        self._nursery.start_soon(self._notice_end, child)
        self._nursery.start_soon(self._prepare)

    async def _notice_end(self, child: Offspring) -> None:
        """Start another when this one ends by itself."""
        began = trio.current_time()
        await child.ended.wait()
        if self._current is not child:
            return
        self._current = None
        if trio.current_time() - began > LONGEST_PAUSE:
            self._pause = 0.0
        await self._start_again(child.code)

    async def _start_again(self, code: int) -> None:
        """Begin after a pause, as a save does, unless one has meanwhile."""
        self._pause = max(FIRST_PAUSE, min(2 * self._pause, LONGEST_PAUSE))
        self._say(YELLOW, f"the service has ended with {code}; it starts again in {self._pause:g} s")
        await trio.sleep(self._pause)
        if self._current is None and not self._trying:
            self._save.set()

    def _tell_failed(self, code: int) -> None:
        if self._current is not None:
            self._say(YELLOW, "not reloaded: the code from before goes on serving, and the next save tries again")
        elif self._has_served and code > 128:  # it was killed on its way, and its code is not to blame
            self._nursery.start_soon(self._start_again, code)
        elif self._has_served:
            self._close_listeners()
            self._say(YELLOW, f"not started ({code}): nobody is served, and the next save tries again")

    # children

    def _start(self) -> Offspring:
        child = start(self._arguments)
        self._children.append(child)

        async def live() -> None:
            await child.run(self._answers, self._terminal)
            self._children.remove(child)

        self._nursery.start_soon(live)
        return child

    async def _prepare(self) -> None:
        """Start the child for the next save ahead, and let it load what does not change: all but one's own code."""
        if self._spare is None and self._current is not None:
            spare = self._start()
            self._spare = spare, packages_changed()
            await spare.say({"load": self._current.told["ahead"]})

    async def _prepared(self) -> Offspring:
        """Return a child that waits for its word: the one that was started ahead, unless packages have changed."""
        spare, self._spare = self._spare, None
        if spare is None:
            return self._start()
        child, changed = spare
        if child.ended.is_set() or changed != packages_changed():
            child.signal(signal.SIGKILL)
            return self._start()
        return child

    async def _end(self, first: signal.Signals, signals: AsyncIterator[int]) -> int:
        """End all children: at a second signal at once, as is one at a prompt, which cannot drain."""
        self._close_listeners()
        last, self._current = self._current or self._starting, None
        heard, second = trio.current_time(), 0
        async with trio.open_nursery() as nursery:

            async def obey() -> None:
                nonlocal second
                async for number in signals:
                    # A terminal that goes says it twice, too.
                    if trio.current_time() - heard > ECHO and number != signal.SIGHUP:
                        second = number
                        for child in self._children:
                            child.signal(signal.SIGKILL)

            nursery.start_soon(obey)
            async with trio.open_nursery() as ending:
                for child in tuple(self._children):
                    if child.at_prompt:
                        child.signal(signal.SIGKILL)
                    ending.start_soon(child.end)
            nursery.cancel_scope.cancel()
        if second:
            return 128 + second
        if last is None or last.code in {128 + signal.SIGTERM, 128 + signal.SIGKILL}:
            return 128 + first  # it had nothing to drain yet, or could not
        return last.code

    # what children ask for

    def _give_listener(self, message: Message) -> tuple[Message, socket.socket | None]:
        field, address = message["field"], message["address"]
        self._addresses[field] = address
        try:
            if (field, address) not in self._listeners:
                self._listeners[field, address] = open_listener(str(self._closed.get((field, address), address)))
        except OSError as error:
            return {"number": error.errno, "error": error.strerror}, None
        except UnicodeError:
            return {"number": 0, "error": "it is no host name"}, None
        return {}, self._listeners[field, address]

    def _close_listeners(self) -> None:
        """Let nobody wait to be accepted; a port that the system chose is the one that is opened again."""
        for (field, address), listener in self._listeners.items():
            host, _, _ = address.rpartition(":")
            self._closed[field, address] = f"{host}:{listener.getsockname()[1]}"
            listener.close()
        self._listeners.clear()

    # what is heard

    async def _collect(self, changes: AsyncIterator[set[Path]]) -> None:
        try:
            async for files in changes:
                self._saved |= files
                self._save.set()
        except* (OSError, RuntimeError) as group:  # watchfiles', at the kernel's limits for each user
            self._say(YELLOW, f"a save changes nothing: the files cannot be watched: {next(leaves(group))}")

    def _take_saved(self) -> str:
        """Return the names of the files that were saved, and let the next save be heard."""
        saved, self._saved, self._save = self._saved, set(), trio.Event()
        names = sorted(
            str(path.relative_to(self._root)) if path.is_relative_to(self._root) else path.name for path in saved
        )
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return ", ".join(names[:NAMED]) + more

    async def _pass_on(self, questions: AsyncIterator[int]) -> None:
        async for number in questions:
            if self._current is not None:
                self._current.signal(signal.Signals(number))

    def _say(self, colour: str, line: str) -> None:
        self._tell(line_of(colour, line, coloured=self._coloured))


async def first_of(*waits: Callable[[], Any]) -> None:
    """Return when the first of these returns."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Any]) -> None:
            await one()
            nursery.cancel_scope.cancel()

        for one in waits:
            nursery.start_soon(wait, one)


def packages_changed() -> int:
    """Return when a package was last installed or removed, in nanoseconds."""
    return Path(trio.__file__).parents[1].stat().st_mtime_ns
