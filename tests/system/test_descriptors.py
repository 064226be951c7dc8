"""Descriptors: the process takes what a full house needs, and clients that take all of them take none of operators'."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import trio

from service.platform.testing.processes import SERVICE, ready

QUICK: dict[str, Any] = {"drain_delay": 0, "drain_spread": 0}


async def test_clients_leave_operators_theirs(tmp_path: Path, database_url: str) -> None:
    command = ("prlimit", "--nofile=80:80", *SERVICE)
    async with (
        ready(tmp_path, "serve", command=command, database_url=database_url, **QUICK) as service,
        httpx2.AsyncClient(timeout=20) as client,
    ):
        address = urlsplit(service.public)
        with ExitStack() as crowd:
            for _ in range(100):  # they say nothing, so each is kept for as long as headers may take
                crowd.enter_context(socket.create_connection((address.hostname, address.port)))
            with trio.fail_after(30):
                while len(service.events("connection dropped")) < 40:  # noqa: ASYNC110  a log has no event
                    await trio.sleep(0.02)
            operators = [await client.get(service.management + path) for path in ("/livez", "/healthz", "/metrics")]
        taken = Path(f"/proc/{service.process.pid}/fd")
        with trio.fail_after(30):
            while len(list(taken.iterdir())) > 50:  # noqa: ASYNC110  nor has the kernel
                await trio.sleep(0.02)
        public = await client.get(service.public + "/livez")
        said = service.log.read_text()
        dropped = service.events("connection dropped")

    assert [answer.status_code for answer in (*operators, public)] == [200] * 4
    assert "EMFILE" not in said
    assert {(line["reason"], line["client"]) for line in dropped} == {("descriptors", "127.0.0.1")}
    assert 'server_dropped_total{reason="descriptors"}' in operators[2].text


async def test_the_process_takes_what_a_full_house_needs(tmp_path: Path, database_url: str) -> None:
    command = ("prlimit", "--nofile=100:2000", *SERVICE)
    limits = []
    for websockets in (1_000, 5_000):
        async with ready(
            tmp_path, "serve", command=command, database_url=database_url, max_websockets=websockets, **QUICK
        ) as service:
            lines = Path(f"/proc/{service.process.pid}/limits").read_text().splitlines()
            limits.append(next(line.split()[3] for line in lines if line.startswith("Max open files")))

    assert limits == [str(1_000 + 200 + 2 * (10 + 5) + 100), "2000"]
