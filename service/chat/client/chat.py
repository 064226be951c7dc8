"""`service chat`: the conversation in a terminal, and the reference for whoever writes a client of chat.v1.

What a client owes to lose nothing is all here: keep what was not acked, and send it again under the same id; keep the
cursor, and resume from it; come back after a close, at a random moment; take silence for an end.
"""

import json
import random
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import trio

from service.chat.client.stranger import NoChatError, Stranger
from service.chat.client.terminal import Terminal, lines, printable
from service.platform.client import ClosedError, WebsocketClient, open_stream, read_token

SILENCE = 2.5  # heartbeats without a sign of life
CONNECT_PATIENCE = 8.0  # seconds until hello
ANSWER_PATIENCE = 10.0  # seconds; the server answers each send within 3
BACKOFF = (0.4, 15.0)  # seconds, first and longest
CALM = 2.5  # seconds after which a server that was sent too much counts anew
LAST_SENDS = 30.0  # seconds for what is not stored at the end of the input

# How a conversation may be lost; each of them is answered by another one.
LOST = (ClosedError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)

type Frame = dict[str, Any]
type Show = Callable[[str], object]


class Member:
    """What outlives a connection: the cursor, and what was written and not acked."""

    def __init__(
        self,
        url: str,
        *,
        room: str,
        name: str,
        show: Show,
        changed: Callable[[], object] = lambda: None,
        token_file: Path | None = None,
    ) -> None:
        """`token_file` is read for each connection: whoever renews the token writes it there."""
        self._url, self._room, self._name, self._show, self._tell_changed = url, room, name, show, changed
        self._token_file = token_file
        self._since: Frame = {}
        self._kept: dict[str, str] = {}  # id → text, in order
        self._own: set[str] = set()  # those that have not come by as a message
        self._changed = trio.Event()
        self._retry_after = 0.0
        self._pause: tuple[float, float] | None = None  # when to come back, as the server said
        self._stranger = Stranger(url, with_token=token_file is not None)
        self._greeted = False
        self.refused = 0  # lines that the server never takes
        self._failures = 0  # connections and joins that came to nothing since the last one that succeeded

    def write(self, text: str) -> None:
        id_ = uuid.uuid4().hex
        self._own.add(id_)
        self._kept[id_] = text
        self._change()

    @property
    def unstored(self) -> int:
        return len(self._kept)

    async def wait_stored(self) -> None:
        """Return once all is acked and has come by; the two come in either order."""
        while self._kept or self._own:
            await self._changed.wait()

    async def run(self) -> None:
        """Converse until cancelled, on one connection after the other. Raises NoChatError where no chat answers."""
        while True:
            self._pause, error = None, BaseException()
            try:
                await self._converse()
            except* LOST as lost:
                error = first_leaf(lost)
            if not self._greeted:
                self._stranger.judge(error)
            reason = str(error) or "no sign of life"
            wait = self._choose_wait()
            waiting = f"; {self.unstored} kept here" if self._kept else ""
            self._show(f"* {reason}; next try in {wait:.1f} s{waiting}")
            await trio.sleep(wait)

    def _choose_wait(self) -> float:
        grown = self._grown_pause()
        return random.uniform(*(self._pause or grown))  # noqa: S311  # spread, not secret

    def _grown_pause(self) -> tuple[float, float]:
        """Return the least and the most seconds to wait after one more failure. They grow until a join succeeds.

        A server that greets whoever comes, and cannot let them join, is not to be asked for ever at the first pause.
        """
        most = min(BACKOFF[1], BACKOFF[0] * 2 ** min(self._failures, 30))  # beyond some thousand no float would hold it
        self._failures += 1
        return most / 2, most

    async def _converse(self) -> None:
        async with (
            open_stream(self._url) as stream,
            WebsocketClient(stream, urlsplit(self._url).netloc) as client,
            trio.open_nursery() as nursery,
        ):
            with trio.fail_after(CONNECT_PATIENCE):
                token = read_token(self._token_file)
                await client.request(f"/ws?name={quote(self._name)}", subprotocol="chat.v1", token=token)
                with self._stranger.greeting():
                    hello = await client.receive()
                    client.patience = SILENCE * hello["heartbeat_ms"] / 1000
                    max_bytes, replica = int(hello["max_bytes"]), hello["server"]
            self._greeted = True
            self._show(f"* connected to replica {replica}")
            await client.send({"type": "join", "room": self._room, "ref": "join", **self._since})
            while True:
                frame = await client.receive()
                if frame["type"] == "joined" and not nursery.child_tasks:  # it is said again to who is moved on
                    nursery.start_soon(self._send, client, max_bytes)
                await self._take(frame, client)

    async def _send(self, client: WebsocketClient, max_bytes: int) -> None:
        """Send what is kept, one at a time: a repeat then never comes behind what was written after it."""
        while True:
            while not self._kept:
                await self._changed.wait()
            id_, text = next(iter(self._kept.items()))
            answered, self._retry_after = self._changed, 0
            frame = json.dumps({"type": "send", "room": self._room, "id": id_, "text": text})
            if (size := len(frame)) > max_bytes:  # the server would close, again and again
                self._show(f"* too_large: text: makes a frame of {size} bytes; the server takes {max_bytes}")
                self._refuse(id_)
                continue
            await client.send_text(frame)
            with trio.fail_after(ANSWER_PATIENCE):
                while id_ in self._kept and not self._retry_after:
                    await answered.wait()
                    answered = self._changed
            await trio.sleep(self._retry_after)

    async def _take(self, frame: Frame, client: WebsocketClient) -> None:
        match frame["type"]:
            case "joined":
                self._failures = 0
                if frame["gap"]:
                    self._show("* what came in between is no longer kept")
                if frame["gap"] or frame["epoch"] != self._since.get("since", frame)["epoch"]:
                    self._own.intersection_update(self._kept)  # what was acked may be gone, and never come by
                    self._change()
                self._since = {"since": {"epoch": frame["epoch"], "seq": frame["from"]}}
                self._show(f"* in {frame['room']} at #{frame['head']}")
            case "message":
                self._since = {"since": {"epoch": frame["epoch"], "seq": frame["seq"]}}
                mark = " ✓" if "subject" in frame else ""
                author = "you" if frame["id"] in self._own else f"{frame['from']}{mark}"
                self._show(f"#{frame['seq']} {author}: {frame['text']}")
                self._own.discard(frame["id"])
                self._change()
            case "ack":
                self._drop(frame["id"])
            case "error":
                await self._take_error(frame, client)
            case "ping":
                await client.send({"type": "pong", "t": frame["t"]})
            case "bye":
                low, high = frame["reconnect_after_ms"]
                self._pause = (low / 1000, high / 1000)
                self._show(f"* the server ends this connection: {frame['reason']}")

    async def _take_error(self, frame: Frame, client: WebsocketClient) -> None:
        self._show(f"* {frame['code']}: {frame['message']}")
        pause = max(frame.get("retry_after_ms", 1000) / 1000, CALM if frame["code"] == "rate_limited" else 0)
        if frame.get("id") in self._kept and frame["retryable"]:
            self._retry_after = pause
            self._change()
        elif frame.get("id") in self._kept:
            self._refuse(frame["id"])
        elif frame.get("ref") == "join":
            await trio.sleep(max(pause, self._grown_pause()[1]))
            await client.send({"type": "join", "room": self._room, "ref": "join", **self._since})

    def _refuse(self, id_: str) -> None:
        """Give a line up that the server never takes, so that those behind it have their turn."""
        self.refused += 1
        self._own.discard(id_)
        self._drop(id_)

    def _drop(self, id_: str) -> None:
        self._kept.pop(id_, None)
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        self._tell_changed()


async def chat(url: str, *, room: str, name: str, token_file: Path | None = None) -> int:
    """Chat until the input ends; returns how many of the lines were not stored by then.

    Raises OSError when nobody takes what is shown, as `head` does once it has enough, and NoChatError.
    """
    try:
        return await chat_by(sys.stdin.fileno(), url, room=room, name=name, token_file=token_file)
    except ExceptionGroup as group:
        if group.split((OSError, NoChatError))[1] is None:
            raise first_leaf(group) from None
        raise


async def chat_by(descriptor: int, url: str, *, room: str, name: str, token_file: Path | None) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return await converse(Member(url, room=room, name=name, show=show, token_file=token_file), lines(descriptor))
    terminal = Terminal(descriptor, lambda: member.unstored)
    member = Member(url, room=room, name=name, show=terminal.show, changed=terminal.draw, token_file=token_file)
    with terminal.unbuffered():
        return await converse(member, terminal.lines())


async def converse(member: Member, typed: AsyncIterator[str]) -> int:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.run)
        async for line in typed:
            if line:
                member.write(line)
        with trio.move_on_after(LAST_SENDS):
            await member.wait_stored()
        nursery.cancel_scope.cancel()
    return member.unstored + member.refused


def show(line: str) -> None:
    print(printable(line), flush=True)


def first_leaf(error: BaseException) -> BaseException:
    """Return the first error of a group that is none itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
