"""One child as its parent sees it: its process, what it asks for, whether it is ready, and how it is ended."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from service.platform.reload.channel import Message, encode

ROOT = Path(__file__).parents[3]
ENTRY = (
    "import sys; sys.path[0] = sys.argv[1]; from service.platform.reload.entry import main; main({}, {}, sys.argv[2:])"
)
# What a child gets beyond the bound of its own drain, in seconds, before it is killed.
MARGIN = 2.0
LOOK = 0.05  # seconds between two looks whether it has ended

# Answers a question: the message, and a socket to hand over.
type Answer = Callable[[Message], tuple[Message, socket.socket | None]]


@dataclass(eq=False)
class Offspring:
    """A child. `told` is what it said when it became ready: where it answers, and how long its drain may take."""

    process: subprocess.Popen[bytes]
    line: trio.socket.SocketType
    ready: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    told: Message = field(default_factory=dict)
    at_prompt: bool = False
    _sending: trio.Lock = field(default_factory=trio.Lock)  # a long message takes more than one send

    @property
    def code(self) -> int:
        """The exit code, 128 + n for one that signal n ended, as a shell has it."""
        code = self.process.returncode or 0
        return 128 - code if code < 0 else code

    async def say(self, message: Message) -> None:
        """Tell it something; nobody may be there any more."""
        await self._send(message, None)

    def signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    async def end(self) -> None:
        """Tell it to drain, and return when it has ended: killed when its bound is over, unless it is at a prompt."""
        self.signal(signal.SIGTERM)
        while not self.ended.is_set():
            with trio.move_on_after(self.told.get("drain_bound", 0) + MARGIN):
                await self.ended.wait()
            if not self.at_prompt:
                self.signal(signal.SIGKILL)

    async def run(self, answers: dict[str, Answer], terminal: trio.Lock) -> None:
        """Answer what it asks until it has ended: what it has forked may live on, and has its end of the line, too."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse, answers, terminal)
            while self.process.poll() is None:  # noqa: ASYNC110  not every system tells a loop of it
                await trio.sleep(LOOK)
            nursery.cancel_scope.cancel()
        self.line.close()
        self.ended.set()

    async def _converse(self, answers: dict[str, Answer], terminal: trio.Lock) -> None:
        read = b""
        try:
            while part := await self._receive():
                *lines, read = (read + part).split(b"\n")
                for message in map(json.loads, lines):
                    await self._hear(message, answers, terminal)
        finally:
            self.at_prompt = False
            if terminal.locked() and terminal.statistics().owner is trio.lowlevel.current_task():
                terminal.release()

    async def _hear(self, message: Message, answers: dict[str, Answer], terminal: trio.Lock) -> None:
        if message.get("want") == "terminal":
            await terminal.acquire()
            self.at_prompt = True
            await self.say({})
        elif message.get("terminal") is False:
            self.at_prompt = False
            terminal.release()
        elif want := message.get("want"):
            await self._send(*answers[want](message))
        else:
            self.told = message
            self.ready.set()

    async def _receive(self) -> bytes:
        try:
            return await self.line.recv(1 << 16)
        except OSError:
            return b""  # it is gone

    async def _send(self, message: Message, handed: socket.socket | None) -> None:
        descriptors = [] if handed is None else [handed.fileno()]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(n.to_bytes(4, sys.byteorder) for n in descriptors))]
        data = encode(message)
        with suppress(OSError):  # it is gone
            async with self._sending:
                sent = await self.line.sendmsg([data], rights if descriptors else [])
                while sent < len(data):
                    sent += await self.line.send(data[sent:])


def start(arguments: Sequence[str]) -> Offspring:
    """Start a child that becomes `service ARGUMENTS` when it is told to go on.

    On this thread, and not on one of Trio's: the kernel ends the child with the thread that started it.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        entry = ENTRY.format(theirs.fileno(), os.getpid())
        command = [sys.executable, "-c", entry, str(ROOT), *arguments]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    return Offspring(process, trio.socket.from_stdlib_socket(ours))
