"""The tree of tasks of a process with two thousand members."""

import re
import resource
from pathlib import Path

import httpx2
import pytest
import trio

from service.chat.client.load import Load, Options
from service.platform.client.load import run_load
from service.platform.client.load_plan import Plan, Report
from service.platform.testing.processes import ready
from tests.system.test_process import QUICK


@pytest.mark.drill
async def test_tasks_answers_with_two_thousand_websockets_open(tmp_path: Path, database_url: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8_192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    async with (
        ready(tmp_path, "serve", database_url=database_url, rate_per_address=0, **QUICK) as service,
        httpx2.AsyncClient(timeout=20) as client,
        trio.open_nursery() as nursery,
    ):
        plan = Plan(url=service.public, duration=30)
        load = Load(plan, Options(members=2_000, writers=1, rooms=20, rate=1))
        nursery.start_soon(run_load, Report(plan, [load]), lambda *_: None)
        with trio.fail_after(60):
            while "websocket_connections 2000" not in (await client.get(service.management + "/metrics")).text:
                await trio.sleep(0.5)
        began = trio.current_time()
        text = (await client.get(service.management + "/tasks")).text
        took = trio.current_time() - began
        nursery.cancel_scope.cancel()

    print(f"2,000 websockets: {took:.2f} s, {len(text):,} characters")
    assert took < 2
    assert len(text) < 50_000
    assert max(int(times) for times in re.findall(r"×(\d+)", text)) > 1_500
