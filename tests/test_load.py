"""What `service load` tells of the clients that ask."""

import json
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from service.commands.load import Run, run_load
from service.commands.load_plan import Plan, Report
from service.commands.load_report import text
from service.commands.websocket_client import open_stream
from tests.booting import booted
from tests.database_fixtures import MakeSettings
from tests.features import open_slow
from tests.processes import run_to_end


async def test_every_answer_is_counted_and_timed(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    shown: list[float] = []
    async with booted(settings) as urls:
        report = Report(Plan(url=urls.public, http=40, path="/api/hello", duration=1))
        with trio.fail_after(30):
            await run_load(Run(report), lambda report, _seconds: shown.append(report.bars(0)[1].done))

    assert report.kept
    assert report.statuses == {"200": 40}
    assert shown[-1] == 40
    assert len(set(shown)) > 2
    assert "statuses          40 × 200" in text(report)
    assert json.loads(report.json())["seconds"]["http"]["p50"] > 0


async def test_gets_come_at_the_asked_rate_however_slow_the_answers_are(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [open_slow]) as urls:
        report = Report(Plan(url=urls.public, http=60, path="/slow?seconds=0.8", duration=1))
        with trio.fail_after(30):
            await run_load(Run(report), lambda *_: None)

    assert report.statuses == {"200": 60}  # 20 connections in turn would have come to 40
    assert min(report.http_times) >= 0.8


async def test_a_host_that_swallows_connections_is_given_up(autojump_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with socket.create_connection(full.getsockname()), pytest.raises(trio.TooSlowError):
            async with open_stream(url):
                pass

    assert trio.current_time() <= 10


async def test_the_verb_ends_with_1_where_nobody_answers(tmp_path: Path) -> None:
    arguments = ["load", "http://127.0.0.1:9", "--duration", "0.5", "--json"]
    arguments += ["--members", "0"]  # sample
    done = await trio.to_thread.run_sync(partial(run_to_end, tmp_path, *arguments))

    assert done.returncode == 1
    assert json.loads(done.stdout)["kept"] is False
