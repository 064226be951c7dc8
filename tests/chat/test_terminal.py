"""`service chat` as a person has it: in a terminal, over the restart of the replica it talks to; and in a pipe."""

import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from service.chat.client.chat import Member, show
from service.chat.client.stranger import NoChatError
from service.chat.client.terminal import Terminal as Editor
from service.platform.testing.own_server import make_certificate
from service.platform.testing.processes import ROOT, SERVICE, Process, environment, ready
from tests.chat.system.balancer import Balancer, balancing

QUICK = {"drain_delay": 0, "drain_spread": 0}


class Terminal:
    """What a process has for a terminal, and what it has printed there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = ""

    async def read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            self.text += os.read(self._descriptor, 65536).decode()

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    async def wait_for(self, pattern: str, count: int = 1, seconds: float = 60) -> list[str]:
        with trio.move_on_after(seconds):
            while len(found := re.findall(pattern, self.text)) < count:
                await trio.sleep(0.02)
            return found
        raise AssertionError(f"{pattern} did not come:\n{self.text}")


def spawn(directory: Path, arguments: Sequence[str], terminal: int) -> subprocess.Popen[bytes]:
    command = [*SERVICE, *arguments]
    return subprocess.Popen(command, cwd=directory, env=environment(), stdin=terminal, stdout=terminal, stderr=terminal)


@asynccontextmanager
async def terminal(directory: Path, *arguments: str) -> AsyncIterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    process = spawn(directory, arguments, theirs)
    try:
        async with trio.open_nursery() as nursery:
            screen = Terminal(ours)
            nursery.start_soon(screen.read)
            yield screen, process
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        process.wait(5)
        os.close(ours)
        os.close(theirs)


@asynccontextmanager
async def two_replicas(directory: Path, database_url: str) -> AsyncIterator[tuple[Balancer, Process]]:
    """Yield a balancer before two replicas, and the one that gets the first connection."""
    async with (
        ready(directory, "serve", name="one", database_url=database_url, **QUICK) as one,
        ready(directory, "serve", name="two", database_url=database_url, **QUICK) as two,
        balancing(*(int(replica.public.rpartition(":")[2]) for replica in (one, two))) as balancer,
    ):
        yield balancer, two


async def test_it_goes_on_at_the_other_replica_when_its_own_is_stopped(tmp_path: Path, database_url: str) -> None:
    async with (
        two_replicas(tmp_path, database_url) as (balancer, two),
        terminal(tmp_path, "chat", balancer.url, "--room", "port", "--name", "ada") as (screen, process),
    ):
        await screen.wait_for("in port at #0")
        screen.type("before\n")
        await screen.wait_for("#1 you: before")
        balancer.ports.pop()  # the first connection went to the last of them
        two.send(signal.SIGTERM)
        screen.type("during\n")
        assert await two.wait_end() == 0
        replicas = await screen.wait_for(r"connected to replica (\w+)", 2)
        screen.type("after\n")
        await screen.wait_for("#3 you: after")
        screen.type("\x04")
        with trio.fail_after(60):
            while process.poll() is None:
                await trio.sleep(0.02)

    assert re.findall(r"#(\d) you: (\w+)", screen.text) == [("1", "before"), ("2", "during"), ("3", "after")]
    assert len(set(replicas)) == 2
    assert process.returncode == 0


class Tmux:
    """A terminal multiplexer of its own, whose one pane is what a person would see."""

    def __init__(self, directory: Path) -> None:
        self._command = ("tmux", "-S", str(directory / "tmux"), "-f", "/dev/null")
        self._directory = directory

    async def run(self, *arguments: str) -> str:
        done = await trio.run_process(
            [*self._command, *arguments], cwd=self._directory, env=environment(), capture_stdout=True
        )
        return done.stdout.decode()

    async def type(self, *keys: str) -> None:
        await self.run("send-keys", *keys)

    async def wait_for(self, pattern: str, seconds: float = 60) -> str:
        screen = ""
        with trio.move_on_after(seconds):
            while not re.search(pattern, screen):
                await trio.sleep(0.05)
                screen = await self.run("capture-pane", "-p")
            return screen
        raise AssertionError(f"{pattern} did not come:\n{screen}")


@asynccontextmanager
async def tmux(directory: Path, *command: str) -> AsyncIterator[Tmux]:
    pane = Tmux(directory)
    await pane.run("new-session", "-d", "-x", "90", "-y", "24", shlex.join(["env", f"PYTHONPATH={ROOT}", *command]))
    try:
        yield pane
    finally:
        await pane.run("kill-server")


@pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux on PATH")
async def test_what_is_being_typed_stays_while_the_replica_is_stopped(tmp_path: Path, database_url: str) -> None:
    async with (
        two_replicas(tmp_path, database_url) as (balancer, two),
        tmux(tmp_path, *SERVICE, "chat", balancer.url, "--room", "deck", "--name", "ada") as pane,
    ):
        await pane.wait_for("in deck at #0")
        await pane.type("beforx", "BSpace", "e", "Enter", "half of a sent")
        await pane.wait_for(r"#1 you: before\s+> half of a sent\s*$")
        balancer.ports.pop()
        two.send(signal.SIGTERM)
        assert await two.wait_end() == 0
        await pane.wait_for(r"(?s)restart.*in deck at #1\s+> half of a sent\s*$")
        await pane.type("ence", "Enter")
        screen = await pane.wait_for(r"#2 you: .*\s+>\s*$")

    assert re.findall(r"#(\d) you: (.*)", screen) == [("1", "before"), ("2", "half of a sentence")]
    assert screen.count("half of a sent") == 1


@pytest.mark.skipif(not (shutil.which("tmux") and shutil.which("bash")), reason="no tmux or no bash on PATH")
async def test_what_is_being_typed_stays_while_a_shell_has_the_terminal(tmp_path: Path, database_url: str) -> None:
    async with (
        ready(tmp_path, "serve", database_url=database_url, **QUICK) as service,
        tmux(tmp_path, "bash", "--norc") as pane,
    ):
        await pane.type(shlex.join([*SERVICE, "chat", service.public, "--room", "hold"]), "Enter")
        await pane.wait_for("in hold at #0")
        await pane.type("half of a sentenci")
        await pane.wait_for("> half of a sentenci")
        await pane.type("C-z")
        await pane.wait_for("Stopped")
        await pane.type("fg", "Enter")
        await pane.wait_for(r"(?s)Stopped.*\n> half of a sentenci\s*$")
        await pane.type("BSpace", "e", "Enter")
        screen = await pane.wait_for(r"#1 you: .*\s+>\s*$")

    assert re.findall(r"#(\d) you: (.*)", screen) == [("1", "half of a sentence")]


@pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux on PATH")
async def test_it_goes_on_in_a_terminal_too_narrow_for_its_prompt(tmp_path: Path, database_url: str) -> None:
    async with (
        ready(tmp_path, "serve", database_url=database_url, **QUICK) as service,
        tmux(tmp_path, *SERVICE, "chat", service.public, "--room", "slim") as pane,
    ):
        await pane.wait_for("in slim at #0")
        await pane.run("resize-window", "-x", "2")
        await pane.type("stored", "Enter")
        await pane.wait_for(r"#\s*1\s")
        await pane.run("resize-window", "-x", "90")
        await pane.type("also", "Enter")

        assert "#2 you: also" in await pane.wait_for("#2 you: also")


async def test_a_pipe_is_sent_line_by_line_and_faster_than_the_rate_allows(tmp_path: Path, database_url: str) -> None:
    async with ready(tmp_path, "serve", database_url=database_url, rate_per_connection=2, **QUICK) as service:
        (tmp_path / "lines").write_text("\n".join(f"line {number}" for number in range(10)))
        command = [*SERVICE, "chat", service.public, "--room", "pipe"]
        with (tmp_path / "lines").open() as lines:
            done = await trio.run_process(command, stdin=lines, capture_stdout=True, check=False, env=environment())

    own = [line for line in done.stdout.decode().splitlines() if line.startswith("#")]
    assert own == [f"#{number + 1} you: line {number}" for number in range(10)]
    assert b"rate_limited" in done.stdout
    assert done.returncode == 0


async def test_a_line_that_is_never_taken_holds_up_none_and_is_counted(tmp_path: Path, database_url: str) -> None:
    given = ["before", "x" * 100_000, "y" * 5_000, "a\0b", "after"]  # beyond a frame, beyond a text, no text
    async with ready(tmp_path, "serve", database_url=database_url, **QUICK) as service:
        done = await trio.run_process(
            [*SERVICE, "chat", service.public, "--room", "refused"], stdin="\n".join(given).encode(),
            capture_stdout=True, capture_stderr=True, check=False, env=environment(),
        )  # fmt: skip

    lines = done.stdout.decode().splitlines()
    assert [line for line in lines if line.startswith("#")] == ["#1 you: before", "#2 you: after"]
    assert [line.split(":")[0] for line in lines if "text" in line] == ["* too_large", "* too_large", "* bad_frame"]
    assert not [line for line in lines if "next try" in line]
    assert (done.returncode, done.stderr.decode()) == (1, "3 lines were not stored\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--room", "UPPER"], "room: must be 1 to 64 of a-z, 0-9 and -, not 'UPPER'"),
        (["--name", ""], "name: must be a string of 1 to 64 printable characters, not ''"),
        (["--name", os.fsdecode(b"\xff")], r"name: must be a string of 1 to 64 printable characters, not '\udcff'"),
        (["--token-file", "two lines"], "two lines: must hold one access token, and nothing else"),
        (["--token-file", "bytes"], "bytes: must hold one access token, and nothing else"),
    ],
)
async def test_what_could_never_join_is_a_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "two lines").write_text("a\nb\n")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with trio.fail_after(60):
        done = await trio.run_process(
            [*SERVICE, "chat", "http://127.0.0.1:9", *arguments], stdin=b"hi\n", cwd=tmp_path,
            capture_stdout=True, capture_stderr=True, check=False, env={**environment(), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    assert (done.returncode, done.stderr.decode()) == (2, f"{said}\n")


@pytest.mark.parametrize(
    ("into", "said"), [("| head -n 1", ""), ("> /dev/full", "the output cannot be written: No space left on device\n")]
)
async def test_output_that_nobody_takes_ends_it_in_a_line(
    tmp_path: Path, database_url: str, into: str, said: str
) -> None:
    async with ready(tmp_path, "serve", database_url=database_url, **QUICK) as service:
        line = f"set -o pipefail; (echo hi; sleep 3) | {shlex.join([*SERVICE, 'chat', service.public])} {into}"
        done = await trio.run_process(
            ["bash", "-c", line], capture_stdout=True, capture_stderr=True, check=False, env=environment()
        )

    assert (done.returncode, done.stderr.decode()) == (1, said)


async def test_nothing_listens_is_said_and_tried_again(tmp_path: Path) -> None:
    async with terminal(tmp_path, "chat", "http://127.0.0.1:9") as (screen, _):
        tries = await screen.wait_for(r"next try in [\d.]+ s", 2)

    assert len(tries) >= 2


@asynccontextmanager
async def strangers(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield the URL of a server that is no chat: it gives these answers in turn, then the last one, and hangs up."""
    asked: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some())
        await stream.send_all(answers[min(len(asked), len(answers)) - 1])
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


def refusal(status: int) -> bytes:
    return f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([refusal(404)], "serves no chat: refused with status 404"),
        ([refusal(200)], "serves no chat: refused with status 200"),
        ([refusal(421)], "serves no chat: refused with status 421"),
        ([refusal(401)], "wants a token: name a file with one by --token-file"),
        ([refusal(502), refusal(503), refusal(404)], "serves no chat: refused with status 404"),
        ([b""], "serves no chat: it ends each connection without an answer"),
        ([b"220 mail.example.org\r\n"], "serves no chat: it ends each connection without an answer"),
    ],
    ids=["404", "200", "421", "401", "after 503", "nothing", "no HTTP"],
)
async def test_where_no_chat_is_served_that_is_said(tmp_path: Path, answers: list[bytes], said: str) -> None:
    with trio.fail_after(60):
        async with strangers(*answers) as (url, asked):
            done = await trio.run_process(
                [*SERVICE, "chat", url], stdin=b"hi\n", capture_stdout=True, capture_stderr=True, check=False,
                cwd=tmp_path, env=environment(),
            )  # fmt: skip

    assert (done.returncode, done.stderr.decode()) == (1, f"{url} {said}\n")
    assert len(asked) >= len(answers)


async def test_a_certificate_that_is_not_trusted_is_said_to_be_the_reason(tmp_path: Path) -> None:
    """It was a service that serves no chat."""
    make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_ssl_over_tcp, answer, 0, context, host="127.0.0.1"))
        url = f"https://127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
        async with terminal(tmp_path, "chat", url) as (screen, _):
            await screen.wait_for(r"certificate verify failed.*next try in [\d.]+ s")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("greeting", ["{}", "[]", "welcome", b"welcome"])
async def test_another_websocket_service_is_no_chat(greeting: str | bytes) -> None:
    async def greet(request: WebSocketRequest) -> None:
        line = await request.accept(subprotocol="chat.v1")
        await line.send_message(greeting)
        await trio.sleep_forever()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, greet, "127.0.0.1", 0, ssl_context=None))
            member = Member(f"http://127.0.0.1:{server.port}", room="r", name="ada", show=lambda _: None)
            with pytest.RaisesGroup(
                pytest.RaisesExc(NoChatError, match="it greets in another way"),
                flatten_subgroups=True,
                allow_unwrapped=True,
            ):
                await member.run()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [refusal(503), refusal(429)])
async def test_who_may_be_back_soon_is_tried_again(tmp_path: Path, answer: bytes) -> None:
    async with strangers(answer) as (url, asked), terminal(tmp_path, "chat", url):
        with trio.fail_after(60):
            while len(asked) < 3:
                await trio.sleep(0.02)


async def test_after_a_greeting_whatever_happens_is_tried_again() -> None:
    """A proxy answers as it likes while the service behind it restarts: no line may be lost."""
    greeter = Greeter(close)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, strangers(refusal(404), b"") as (elsewhere, asked):
            chat = await nursery.start(greeter.serve)
            async with balancing(urlsplit(chat).port or 0) as balancer:
                member = Member(balancer.url, room="r", name="ada", show=lambda _: None)
                member.write("kept")
                nursery.start_soon(member.run)
                while not greeter.joins:
                    await trio.sleep(0.02)
                balancer.ports = [urlsplit(elsewhere).port or 0]
                while len(asked) < 3:
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()

    assert member.unstored == 1


HELLO = json.dumps({"type": "hello", "server": "greeter", "heartbeat_ms": 20_000, "max_bytes": 65_536})
JOINED = {"type": "joined", "room": "r", "epoch": "e", "from": 0, "head": 0, "gap": False, "ref": "join"}
UNAVAILABLE = {"type": "error", "code": "unavailable", "message": "m", "retryable": True, "retry_after_ms": 1}

type Refuse = Callable[[WebSocketConnection], Awaitable[None]]


class Greeter:
    """A service that greets whoever comes, and lets nobody join."""

    def __init__(self, refuse: Refuse) -> None:
        self.joins: list[float] = []
        self._refuse = refuse

    async def serve(self, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_websocket, self._converse, "127.0.0.1", 0, ssl_context=None)
            server = await nursery.start(serve)
            task_status.started(f"http://127.0.0.1:{server.port}")

    async def _converse(self, request: WebSocketRequest) -> None:
        line = await request.accept(subprotocol="chat.v1")
        await line.send_message(HELLO)
        with suppress(ConnectionClosed):
            while True:
                await line.get_message()
                self.joins.append(trio.current_time())
                await self._refuse(line)


async def close(line: WebSocketConnection) -> None:
    await line.aclose(1011, "an error of the server")


async def say_unavailable(line: WebSocketConnection) -> None:
    await line.send_message(json.dumps({**UNAVAILABLE, "ref": "join"}))


@pytest.mark.parametrize("refuse", [close, say_unavailable])
async def test_the_pause_grows_until_a_join_has_succeeded(refuse: Refuse) -> None:
    greeter = Greeter(refuse)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            member = Member(await nursery.start(greeter.serve), room="r", name="ada", show=lambda _: None)
            nursery.start_soon(member.run)
            while len(greeter.joins) < 5:
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()

    pauses = [later - earlier for earlier, later in pairwise(greeter.joins)]
    assert [pause >= least for pause, least in zip(pauses, (0.2, 0.4, 0.8, 1.6), strict=True)] == [True] * 4


async def test_a_member_comes_back_also_when_the_service_was_away_for_a_night(autojump_clock: MockClock) -> None:
    said: list[str] = []
    with socket.socket() as nobody, trio.move_on_after(8 * 3_600):
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        await Member(f"http://127.0.0.1:{nobody.getsockname()[1]}", room="r", name="ada", show=said.append).run()

    assert len(said) > 1_500
    assert 7.5 <= float(said[-1].split()[-2]) <= 15


async def test_a_member_that_is_moved_on_sends_each_line_once() -> None:
    """The service says `joined` a second time, for instance after `service epoch`."""
    sent: list[str] = []
    ended = trio.Event()

    async def serve(request: WebSocketRequest) -> None:
        line = await request.accept(subprotocol="chat.v1")
        await line.send_message(HELLO)
        joined = JOINED | {"gap": True}
        for _ in range(2):
            await line.send_message(json.dumps(joined))
        while sent[-1:] != ["second"]:
            frame = json.loads(await line.get_message())
            if frame["type"] == "send":
                sent.append(frame["text"])
                await line.send_message(json.dumps({"type": "ack", "id": frame["id"]}))
        ended.set()
        await trio.sleep_forever()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, serve, "127.0.0.1", 0, ssl_context=None))
            member = Member(f"http://127.0.0.1:{server.port}", room="r", name="ada", show=lambda _: None)
            for text in ("first", "second"):
                member.write(text)
            nursery.start_soon(member.run)
            await ended.wait()
            nursery.cancel_scope.cancel()

    assert sent == ["first", "second"]


async def let_in(request: WebSocketRequest) -> tuple[WebSocketConnection, dict[str, Any]]:
    """Let a member into a room, and return its line and the first that it sends there."""
    line = await request.accept(subprotocol="chat.v1")
    await line.send_message(HELLO)
    await line.send_message(json.dumps(JOINED))
    while (frame := json.loads(await line.get_message()))["type"] != "send":
        pass
    return line, frame


@pytest.mark.parametrize("moved", [{"epoch": "e", "gap": True}, {"epoch": "f", "gap": False}], ids=["gap", "epoch"])
async def test_what_was_stored_and_is_gone_is_not_waited_for(moved: dict[str, object]) -> None:
    """Acked, and then the member is moved on to where it does not come by any more."""

    async def serve(request: WebSocketRequest) -> None:
        line, frame = await let_in(request)
        await line.send_message(json.dumps({"type": "ack", "id": frame["id"]}))
        await line.send_message(json.dumps(JOINED | moved))
        await trio.sleep_forever()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, serve, "127.0.0.1", 0, ssl_context=None))
            member = Member(f"http://127.0.0.1:{server.port}", room="r", name="ada", show=lambda _: None)
            member.write("hi")
            nursery.start_soon(member.run)
            await member.wait_stored()
            nursery.cancel_scope.cancel()


async def test_what_the_output_cannot_hold_is_written_in_other_words(tmp_path: Path) -> None:
    """Whoever wrote it would have ended the client of all whose terminal knows fewer letters."""

    async def serve(request: WebSocketRequest) -> None:
        line, frame = await let_in(request)
        said = {"type": "message", "room": "r", "epoch": "e", "from": "Jörg", "text": "✓"}
        await line.send_message(json.dumps(said | {"seq": 1, "id": "another"}))
        await line.send_message(json.dumps({"type": "ack", "id": frame["id"]}))
        await line.send_message(json.dumps(said | {"seq": 2, "id": frame["id"]}))
        await trio.sleep_forever()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, serve, "127.0.0.1", 0, ssl_context=None))
            done = await trio.run_process(
                [*SERVICE, "chat", f"http://127.0.0.1:{server.port}"], stdin=b"hi\n", capture_stdout=True,
                capture_stderr=True, check=False, cwd=tmp_path, env=environment() | {"PYTHONIOENCODING": "latin-1"},
            )  # fmt: skip
            nursery.cancel_scope.cancel()

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("latin-1").splitlines()[-2:] == ["#1 Jörg: \\u2713", "#2 you: \\u2713"]


async def test_joiners_are_shown_and_typed(tmp_path: Path, database_url: str) -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    async with (
        ready(tmp_path, "serve", database_url=database_url, **QUICK) as service,
        terminal(tmp_path, "chat", service.public, "--room", "joined", "--name", family) as (screen, _),
    ):
        await screen.wait_for("in joined at #0")
        screen.type(f"{family}\n")
        assert await screen.wait_for(f"#1 you: {family}")


async def test_a_long_paste_is_taken_at_once_and_keeps_its_words_apart(tmp_path: Path, database_url: str) -> None:
    async with (
        ready(tmp_path, "serve", database_url=database_url, **QUICK) as service,
        terminal(tmp_path, "chat", service.public, "--room", "paste") as (screen, _),
    ):
        await screen.wait_for("in paste at #0")
        pasted = "\u4e2d" * 20_000 + "\none\ttwo\r\nthree\n"
        await trio.to_thread.run_sync(screen.type, pasted, abandon_on_cancel=True)
        await screen.wait_for("#2 you: three", seconds=30)

    assert "* too_large: text: " in screen.text
    assert "#1 you: one two\r" in screen.text


async def typed(keys: Sequence[str], capsys: pytest.CaptureFixture[str], clock: MockClock) -> str:
    """Return the line that is typed by keys, each of which has been read and drawn before the next; "" is a pause."""
    ours, theirs = pty.openpty()
    send, receive = trio.open_memory_channel[str](1)

    async def take(terminal: Editor) -> None:
        async for line in terminal.lines():
            send.send_nowait(line)

    try:
        editor = Editor(theirs, lambda: 0)
        with trio.fail_after(60), editor.unbuffered():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take, editor)
                await trio.testing.wait_all_tasks_blocked()
                for key in keys:
                    capsys.readouterr()
                    os.write(ours, key.encode())
                    clock.jump(0 if key else 1)
                    while key and not capsys.readouterr().out:
                        await trio.lowlevel.checkpoint()
                    await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    finally:
        os.close(ours)
        os.close(theirs)
    return receive.receive_nowait()


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["a", "\x1b", "[A", "b\n"], "ab"),
        (["a", "\x1b[", "A", "b\n"], "ab"),
        (["a\x1b[1;", "5Ab\n"], "ab"),
        (["a\x1bO", "Pb\n"], "ab"),
        (["a\x1b\x1b[Ab\x1b[Z\n"], "ab"),
        (["a\x1b", "\x1b[A", "b\n"], "ab"),
        (["a\x1b", "", "[b]\n"], "a[b]"),
        (["a\x1bxb\n"], "ab"),
    ],
)
async def test_keys_that_the_editor_does_not_know_are_no_text_also_when_they_come_in_parts(
    keys: Sequence[str], line: str, capsys: pytest.CaptureFixture[str], mock_clock: MockClock
) -> None:
    """Over a slow line the parts of a key come one by one; Escape alone is a key, and what comes later is text."""
    assert await typed(keys, capsys, mock_clock) == line


async def test_a_terminal_that_is_hung_up_ends_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    """Where what is shown goes elsewhere, nothing else would end it: each read returns at once, with nothing."""
    ours, theirs = pty.openpty()
    lines = Editor(theirs, lambda: 0).lines()
    try:
        os.write(ours, b"said\n")
        said = [await anext(lines)]
        os.close(ours)
        with trio.fail_after(60):
            said += [line async for line in lines]
    finally:
        os.close(theirs)

    assert said == ["said"]


def test_what_others_wrote_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show("#1 eve: \x1b[2J\x07 gone")

    assert capsys.readouterr().out == "#1 eve:  [2J  gone\n"
