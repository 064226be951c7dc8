"""`service dev`, which is what `make run` starts: everything comes up by itself, and nothing is left behind."""

import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
import trio

from service.platform.testing.fixtures import waits_for_a_schema
from service.platform.testing.processes import Process, descendants, ready, started


async def wait_gone(pids: list[int], seconds: float = 20) -> None:
    with trio.fail_after(seconds):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await trio.sleep(0.02)


def sockets_left(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


async def test_ctrl_c_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    async with ready(tmp_path, "dev") as service, httpx2.AsyncClient() as client:
        hello = await client.get(service.public + "/api/hello")
        below = descendants(service.process.pid)
        begun = time.monotonic()
        service.send(signal.SIGINT)

        assert await service.wait_end() == 0
        assert time.monotonic() - begun < 15  # it has no drain delay, and nothing to wait for
        assert hello.status_code == 200
        assert below
        await wait_gone(below)
        assert not sockets_left(tmp_path)
        assert "Trireme is ready on http://127.0.0.1:" in service.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_killed_owner_leaves_no_server(tmp_path: Path, number: signal.Signals) -> None:
    async with ready(tmp_path, "dev") as service:
        below = descendants(service.process.pid)
        service.send(number)
        await service.wait_end()

        await wait_gone(below)
        assert below
    async with ready(tmp_path, "dev") as service, httpx2.AsyncClient() as client:  # and the data can be used again
        assert (await client.get(service.public + "/healthz")).status_code == 200


async def test_a_second_signal_takes_the_server_along(tmp_path: Path) -> None:
    async with ready(tmp_path, "dev", drain_delay=60) as service:
        below = descendants(service.process.pid)
        service.send(signal.SIGINT)
        await trio.sleep(0.8)
        service.send(signal.SIGINT)

        assert await service.wait_end() == 128 + signal.SIGINT
        await wait_gone(below)


async def test_two_run_at_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        services: list[Process] = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            services.append(await stack.enter_async_context(ready(tmp_path / name, "dev")))
        client = await stack.enter_async_context(httpx2.AsyncClient())

        assert [(await client.get(service.public + "/readyz")).status_code for service in services] == [200, 200]


@waits_for_a_schema
async def test_it_uses_another_server_and_never_migrates_it(tmp_path: Path, empty_database_url: str) -> None:
    with started(tmp_path, "dev", database_url=empty_database_url, log_format="json") as service:
        seen = await service.wait_event("schema seen")
        service.send(signal.SIGINT)

        assert await service.wait_end() == 0
        assert "run `service migrate`" in seen["meaning"]
        assert not (tmp_path / ".data").exists()
