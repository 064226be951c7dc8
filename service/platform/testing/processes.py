"""Real processes of the service: started, waited for, told to stop, and never left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url
from wsproto.frame_protocol import CloseReason

from service.platform.testing.forkserver import Fork, ForkServer

SERVICE = (sys.executable, "-m", "service")
FROM_NOTHING = ("env", *SERVICE)  # never a fork, which shares with others what memory it has not changed
ROOT = Path(__file__).parents[3]
STAND_INS: dict[str, str] = {}
"""Variables and values of what must be set; fixtures.py puts them here when the session begins."""
PATIENCE = 60.0  # seconds until something is taken to hang; on a busy machine a start alone takes ten


@dataclass(frozen=True)
class Process:
    """A started service; `log` collects its standard output and error."""

    process: subprocess.Popen[bytes] | Fork
    log: Path
    ready_file: Path

    @property
    def urls(self) -> dict[str, str]:
        urls: dict[str, str] = json.loads(self.ready_file.read_text())
        return urls

    @property
    def public(self) -> str:
        return self.urls["public"]

    @property
    def management(self) -> str:
        return self.urls["management"]

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the log's JSON lines, those of one event if named; the last may still be being written."""
        whole = self.log.read_bytes().rpartition(b"\n")[0]
        lines = [json.loads(line) for line in whole.split(b"\n") if line.startswith(b"{")]
        return [line for line in lines if not name or line["event"] == name]

    def complaints(self) -> list[str]:
        """Return the log's events that warn or say worse, but for how long something took: that is the machine's."""
        told = [line["event"] for line in self.events() if line["level"] in {"warning", "error", "critical"}]
        return [event for event in told if event != "slow unit" and not event.startswith("event loop ")]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait_ready(self, seconds: float = PATIENCE) -> None:
        with trio.fail_after(seconds):
            while not self.ready_file.exists():
                assert self.process.poll() is None, self.log.read_text()
                await trio.sleep(0.02)

    async def wait_event(self, name: str, seconds: float = PATIENCE) -> dict[str, Any]:
        with trio.fail_after(seconds):
            while not (found := self.events(name)):  # noqa: ASYNC110  a log has no event
                await trio.sleep(0.02)
        return found[0]

    async def wait_end(self, seconds: float = PATIENCE) -> int:
        with trio.fail_after(seconds):
            while (code := self.process.poll()) is None:  # noqa: ASYNC110  nor has a process
                await trio.sleep(0.02)
        return code


def environment(**settings: object) -> dict[str, str]:
    """Return this process's environment without any setting that need not be, and with these: `bind=...`."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("SERVICE_")}
    return kept | STAND_INS | {f"SERVICE_{name.upper()}": str(value) for name, value in settings.items()}


_forks: list[ForkServer] = []


@contextmanager
def with_forks() -> Iterator[None]:
    """Fork in this scope what needs no start of its own; outside of it, as in a benchmark, all are started."""
    server = ForkServer()
    _forks.append(server)
    try:
        yield
    finally:
        _forks.remove(server)
        server.close()


def launch(
    command: Sequence[str], *, directory: Path, environment: Mapping[str, str], out: BinaryIO, err: BinaryIO
) -> subprocess.Popen[bytes] | Fork:
    """Begin a process on our code: a fork, where there are any and that makes no difference."""
    given = {**environment, "PYTHONPATH": str(ROOT)}
    if _forks and _forks[0].can_be(command, directory=directory, environment=given):
        with Path(os.devnull).open() as nothing:
            streams = [stream.fileno() for stream in (nothing, out, err)]
            return _forks[0].fork(command, directory=directory, environment=given, streams=streams)
    return subprocess.Popen(command, cwd=directory, env=given, stdin=subprocess.DEVNULL, stdout=out, stderr=err)


@contextmanager
def started(
    directory: Path, *arguments: str, command: Sequence[str] = SERVICE, name: str = "service", **settings: object
) -> Iterator[Process]:
    """Start `service ARGUMENTS` in an empty directory, on free ports; it is killed at the end if it still runs."""
    ready_file = directory / f"{name}-ready.json"
    ready_file.unlink(missing_ok=True)
    log = directory / f"{name}.log"
    given = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "ready_file": ready_file, **settings}
    with log.open("wb") as output:
        whole = (*command, *arguments)
        process = launch(whole, directory=directory, environment=environment(**given), out=output, err=output)
    try:
        yield Process(process, log, ready_file)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


@asynccontextmanager
async def ready(directory: Path, *arguments: str, **settings: Any) -> AsyncIterator[Process]:
    """Start `service ARGUMENTS` and yield it once it is ready."""
    with started(directory, *arguments, **settings) as running:
        await running.wait_ready()
        yield running


def run_to_end(
    directory: Path, *arguments: str, command: Sequence[str] = SERVICE, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run `service ARGUMENTS` to its end, at most a minute; environment variables by field name."""
    whole = [*command, *arguments]
    with TemporaryFile() as out, TemporaryFile() as err:
        process = launch(whole, directory=directory, environment=environment(**settings), out=out, err=err)
        try:
            code = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait(10)
        said = [_text(file) for file in (out, err)]
    return subprocess.CompletedProcess(whole, code, *said)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()


def descendants(pid: int) -> list[int]:
    """Return the pids below a process, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found, wave = [], [pid]
    while wave:
        wave = [child for child, parent in parents.items() if parent in wave]
        found += wave
    return found


@asynccontextmanager
async def open_websocket(url: str, path: str) -> AsyncIterator[WebSocketConnection]:
    """Open a websocket at `path` of a service whose URL is `url`, and leave no socket behind."""
    connection: WebSocketConnection | None = None
    try:
        async with open_websocket_url(url.replace("http://", "ws://") + path) as connection:
            yield connection
    finally:
        if connection is not None:  # it forgets its socket when the server closes first
            await trio.aclose_forcefully(connection._stream)


def close_code(closed: ConnectionClosed) -> int:
    return closed.reason.code if closed.reason else CloseReason.ABNORMAL_CLOSURE
