"""What an operator sees of a live process that misbehaves: who holds the loop, who waits for what, whose fault."""

import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
from pydantic import SecretStr

from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import PATIENCE, Process, ready
from tests.system.test_process import QUICK, WITH_FEATURES

FEATURES = Path(__file__).parents[1] / "platform" / "features.py"


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(FEATURES.read_text().splitlines(), 1) if text in line)


@asynccontextmanager
async def holding(directory: Path, database_url: str, **settings: object) -> AsyncIterator[Process]:
    async with ready(
        directory,
        "HOLDING",
        command=WITH_FEATURES,
        database_url=database_url,
        **(QUICK | {"graceful_timeout": 1, "request_deadline": 1} | settings),
    ) as service:
        yield service


# A count for less than the 10 s after which idle threads of Trio's wake up, also on a busy machine: whoever waits for
# the interpreter as C code lets it go may be the one that gets it, and the watchdog is too late (3 of 84 with 13 s).
@pytest.mark.parametrize(
    ("path", "line"), [("/hold?seconds=1", "time.sleep(float"), ("/compute?count=20000000", "sum(range(int")]
)
async def test_who_holds_the_event_loop_is_named_while_it_does(
    tmp_path: Path, database_url: str, path: str, line: str
) -> None:
    where = f"{FEATURES}:{line_of(line)}"

    async def named(event: str) -> dict[str, Any]:
        """Return its line about the planted hold; a busy machine has others, at the start for one."""
        with trio.fail_after(PATIENCE):
            while not (found := [told for told in service.events(event) if told["where"] == where]):
                await trio.sleep(0.02)
        return found[0]

    async with holding(tmp_path, database_url) as service, httpx2.AsyncClient(timeout=20) as client:
        request_id = (await client.get(service.public + path)).headers["x-request-id"]
        held, free = await named("event loop held"), await named("event loop free again")
        ended = service.events("request")[0]
        health = (await client.get(service.management + "/healthz")).json()["checks"]["event_loop"]
        metrics = (await client.get(service.management + "/metrics")).text

    assert held["request_id"] in {request_id, ""}  # empty when C code let the thread look only as the request ended
    assert line in held["stack"]
    if "hold" in path:
        assert held["timestamp"] < ended["timestamp"]
    assert free["seconds"] > 0.1
    assert "last held by" in health["state"]
    assert float(metrics.partition("\nevent_loop_holds_total ")[2].split()[0]) >= 1


async def shown_tasks(client: httpx2.AsyncClient, service: Process) -> tuple[str, dict[str, Any]]:
    """Return `/tasks`, as text and as JSON, once the request hangs and the unit's thread waits for the database."""
    url = service.management + "/tasks"
    with trio.fail_after(60):
        while True:
            tree = (await client.get(url, headers={"Accept": "application/json"})).json()
            text = (await client.get(url)).text  # the later one: what the first shows, and lasts, is in it too
            if "GET /hang for " in text and any("features.py" in thread["at"] for thread in tree["threads"]):
                return text, tree


async def test_who_waits_for_what_is_told(tmp_path: Path, database_url: str) -> None:
    async with (
        holding(tmp_path, database_url, request_deadline=20, graceful_timeout=20) as service,
        httpx2.AsyncClient(timeout=20) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.get, service.public + "/hang")
        nursery.start_soon(client.get, service.public + "/slow-unit")
        text, tree = await shown_tasks(client, service)
        service.send(signal.SIGUSR1)
        logged = await service.wait_event("tasks")
        nursery.cancel_scope.cancel()

    hang = line_of("await trio.Event().wait()")
    for shown in (text, logged["tree"]):
        assert f"tests/platform/features.py:{hang} open_holding.<locals>.hang" in shown
        assert "GET /hang for " in shown
        assert re.search(r"\(deadline in (1\d|20)\.\d s\)", shown)
        assert "trio/_sync.py" in shown
        assert "service/platform/database/unit.py" in shown
    assert tree["tasks"]["task"] == "<init>"
    [unit] = [one for one in tree["units"] if one["unit"] == "select_slowly"]  # beside what tasks run in between
    assert 0 < unit["seconds"] < 20


async def test_the_level_can_be_changed_for_some_time(tmp_path: Path, database_url: str) -> None:
    async with holding(tmp_path, database_url) as service, httpx2.AsyncClient() as client:
        url = service.management + "/loglevel"
        before = (await client.get(url)).json()
        changed = (await client.put(url, json={"level": "debug", "seconds": 1})).json()
        await service.wait_event("log level returned")
        after = (await client.get(url)).json()
        wrong = [await client.put(url, json=body) for body in ({}, {"level": "loud"}, {"level": "info", "seconds": 0})]
        foreign = await client.put(url, json={"level": "debug"}, headers={"Host": "evil.example"})

    assert (before["level"], changed["level"], after["level"]) == ("info", "debug", "info")
    assert 0 < changed["seconds_left"] <= 1
    assert [answer.status_code for answer in wrong] == [400, 400, 400]
    assert foreign.status_code == 403


async def test_with_the_database_stopped_everything_says_database(tmp_path: Path, own_server: OwnServer) -> None:
    migrate(PlatformSettings(database_url=SecretStr(own_server.url)), wait=10)
    async with holding(tmp_path, own_server.url) as service, httpx2.AsyncClient(timeout=20) as client:
        own_server.stop()
        with trio.fail_after(PATIENCE):
            await service.wait_event("database away")
            while "database_up 0.0" not in (await client.get(service.management + "/metrics")).text:
                await trio.sleep(0.1)
            health = await client.get(service.management + "/healthz")

    assert health.status_code == 503
    failing = [name for name, check in health.json()["checks"].items() if not check["ok"]]
    assert [name for name in failing if name != "background"] == ["database"]  # a task may have noticed as well by now


async def test_probes_are_logged_when_their_answer_changes(tmp_path: Path, database_url: str) -> None:
    async with holding(tmp_path, database_url, drain_delay=60) as service, httpx2.AsyncClient() as client:
        for _ in range(5):
            for path in ("/livez", "/readyz", "/healthz"):
                await client.get(service.public + path)
        service.send(signal.SIGTERM)
        await service.wait_event("draining")
        for _ in range(5):
            await client.get(service.management + "/readyz")
        service.send(signal.SIGUSR1)
        await service.wait_event("tasks")  # what came before it is in the log by now

    changes = [(line["probe"], line["status"], line.get("reason")) for line in service.events("probe changed")]
    assert changes == [("/readyz", 200, None), ("/readyz", 503, "draining")]
    assert not service.events("request")


NASTY = (
    b"GET /%00%0a%1b[31m%ff?token=hunter2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\xfe\xc3\x28 HTTP/1.1\r\nHost: x\r\n\r\n",
    b'GET /"}\x7f HTTP/1.1\r\nHost: x\r\n\r\n',
    b'G{"event":1} / HTTP/1.1\r\nHost: x\r\n\r\n',
    b"BREW!#$%&'*+.^_`|~ /api/hello HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /api/hello HTTP/1.1\r\nHost: \xff\r\nX-Request-Id: \xff\x80\r\ntraceparent: 00-\xff\r\n\r\n",
    b'GET /api/hello HTTP/1.1\r\nHost: x\r\nX-Request-Id: {"a":\t1}\r\nUser-Agent: \xe2\x28\xa1\r\n\r\n',
    b"GET /api/hello?name=%ed%a0%80%0d%0a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /api/rooms/x/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 4\r\n\r\n\xff\n\x00{",
    b"GET /ws?name=%1b%0a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    b"\x88\x85\x00\x00\x00\x00\x03\xe8\xff\n\x00",  # a close whose reason is no UTF-8
)


async def test_each_log_line_is_json_whatever_bytes_a_client_sends(tmp_path: Path, database_url: str) -> None:
    async with ready(tmp_path, "serve", database_url=database_url, log_level="debug", **QUICK) as service:
        place = urlsplit(service.public)
        for request in NASTY:
            async with await trio.open_tcp_stream(place.hostname or "", place.port or 0) as stream:
                await stream.send_all(request)
                with trio.move_on_after(5), suppress(trio.BrokenResourceError):
                    assert await stream.receive_some()
        service.send(signal.SIGTERM)
        assert await service.wait_end() == 0

    lines = service.log.read_bytes().splitlines()
    assert len([json.loads(line)["event"] for line in lines]) > len(NASTY) / 2  # each is a line, and nothing else is
    assert all(line.isascii() and b"\x1b" not in line for line in lines)
    assert b"hunter2" not in service.log.read_bytes()
    assert service.events()[-1]["event"] == "stopped"
