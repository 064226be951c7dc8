"""What members of the chat see while a release is upgraded. Runs in the service's image, as rollout.py does:

    python - http://NAME [STOP] < tests/chat/rollout.py    ends when STOP (/tmp/stop) exists; exit 1 when one was lost

Members hold websockets and resume, a writer sends and repeats what was not acked, or what may be repeated.
"""

import collections
import json
import random
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from service.chat.client.smoke import Chat
from service.platform.client import ClosedError, SmokeError, WebsocketClient

RESTART = 1012
ROOM = "rollout"
MEMBERS = 20
STOP = Path("/tmp/stop")  # in a pod of its own, where /tmp is all that can be written


class RepeatError(Exception):
    """The service was too busy, and says when to come back."""

    def __init__(self, code: str, after: float) -> None:
        super().__init__(code)
        self.code = code
        self.after = after  # seconds


class Patient(Chat):
    async def receive(self) -> dict[str, Any]:
        """Return the next frame; raises RepeatError for an error that may be repeated, SmokeError for any other."""
        frame = await WebsocketClient.receive(self)
        if frame["type"] != "error":
            return frame
        if frame.get("retryable"):
            raise RepeatError(frame["code"], (frame.get("retry_after_ms") or 1000) / 1000)
        raise SmokeError(f"{frame['code']}: {frame['message']}")


class Rollout:
    """Counts what happened; `problems` must stay empty."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.host = place.netloc
        self.address = (place.hostname or "", place.port or 80)
        self.counts: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.acked: dict[str, int] = {}

    async def member(self, number: int) -> None:
        """Stay in the room over restarts; each message must follow the one before."""
        since: dict[str, object] = {}
        while True:
            pause: list[float] = [0, 1000]
            try:
                async with await trio.open_tcp_stream(*self.address) as stream:
                    chat = Patient(stream, self.host)
                    await chat.open(name=f"member-{number}")
                    await chat.send({"type": "join", "room": ROOM, "ref": "1"} | ({"since": since} if since else {}))
                    while True:
                        frame = await chat.receive()
                        if frame["type"] == "bye":
                            pause = frame["reconnect_after_ms"]
                        since = self.follow(frame, since)
            except ClosedError as closed:
                self.closed(closed.code)
            except RepeatError as repeat:
                pause = [repeat.after * 1000] * 2
                self.counts[f"repeated {repeat.code}"] += 1
            await trio.sleep(random.uniform(*pause) / 1000)  # spread, not secret

    def follow(self, frame: dict[str, object], since: dict[str, object]) -> dict[str, object]:
        if frame["type"] == "joined":
            if since and frame["gap"]:
                self.problems.append(f"a gap after {since}")
            return {"epoch": frame["epoch"], "seq": frame["from"]}
        if frame["type"] == "message":
            self.counts["delivered"] += 1
            if frame["seq"] != int(str(since["seq"])) + 1:
                self.problems.append(f"{frame['seq']} came after {since['seq']}")
            return {"epoch": frame["epoch"], "seq": frame["seq"]}
        return since

    def closed(self, code: int) -> None:
        self.counts[f"closed {code}"] += 1
        if code != RESTART:
            self.problems.append(f"a websocket was closed with {code}")

    async def write_for_ever(self) -> None:
        number = 0
        while True:
            try:
                async with await trio.open_tcp_stream(*self.address) as stream:
                    chat = Patient(stream, self.host)
                    await chat.open(name="writer")
                    await chat.send({"type": "join", "room": ROOM, "ref": "1"})
                    await chat.wait_for("joined")
                    while True:
                        id_ = f"{id(self)}-{number}"
                        self.acked[id_] = await self.write(chat, id_, str(number))
                        number += 1
                        await trio.sleep(0.1)
            except ClosedError as closed:
                self.closed(closed.code)
            except RepeatError as repeat:
                self.counts[f"repeated {repeat.code}"] += 1
                await trio.sleep(repeat.after)

    async def write(self, chat: Patient, id_: str, text: str) -> int:
        """Send until it is acked, with the same id; return its place in the room."""
        while True:
            await chat.send({"type": "send", "room": ROOM, "id": id_, "text": text})
            try:
                ack = await chat.wait_for("ack", id=id_)
            except RepeatError as repeat:
                self.counts[f"repeated {repeat.code}"] += 1
                await trio.sleep(repeat.after)
            else:
                return int(ack["seq"])

    def report(self, seconds: float) -> str:
        if self.counts["delivered"] < len(self.acked) * MEMBERS:
            self.problems.append(f"{len(self.acked)} acked, {self.counts['delivered']} delivered to {MEMBERS} members")
        facts = {"seconds": round(seconds), "acked": len(self.acked), **self.counts, "problems": self.problems[:20]}
        return json.dumps(facts)


async def main(url: str, end: Path) -> Rollout:
    rollout = Rollout(url)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(MEMBERS):
            nursery.start_soon(rollout.member, number)
        await trio.sleep(2)  # all are in the room before the first message, and for 3 s after the last
        with trio.CancelScope() as sending:
            nursery.start_soon(stop, sending, end)
            await rollout.write_for_ever()
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    print(rollout.report(trio.current_time() - started))  # the report
    return rollout


async def stop(sending: trio.CancelScope, end: Path) -> None:
    while not await trio.Path(end).exists():  # noqa: ASYNC110  # a file has no event
        await trio.sleep(0.1)
    sending.cancel()


if __name__ == "__main__":
    end = Path(sys.argv[2]) if sys.argv[2:] else STOP
    sys.exit(bool(trio.run(main, sys.argv[1], end).problems))
