"""What `service load` tells of the clients that ask."""

import json
import socket
import struct
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from service.platform.client import open_stream
from service.platform.client.load import find_listening, run_load
from service.platform.client.load_http import HttpLoad
from service.platform.client.load_plan import Plan, Report
from service.platform.client.load_report import text
from service.platform.settings import PlatformSettings
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.verbs import Program, run_program
from service.platform.verbs.inspect import reason
from tests.platform.features import PLAIN, SLOW
from tests.platform.identity.world import world


async def test_every_answer_is_counted_and_timed(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    shown: list[float] = []
    async with booted(settings, [PLAIN]) as urls:
        plan = Plan(url=urls.public, duration=1)
        asking = HttpLoad(plan, rate=40, path="/plain")
        report = Report(plan, [asking])
        with trio.fail_after(30):
            await run_load(report, lambda report, _seconds: shown.append(report.bars(0)[1].done))

    assert report.kept
    assert asking.statuses == {"200": 40}
    assert shown[-1] == 40
    assert len(set(shown)) > 2
    assert "statuses          40 × 200" in text(report)
    assert json.loads(report.json())["seconds"]["http"]["p50"] > 0


async def test_a_token_is_read_for_each_connection_and_sent(make_settings: MakeSettings, tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with world(make_settings) as here:
        found = {}
        for name, token in {"good": here.issuer.token(), "bad": "x"}.items():
            file.write_text(token + "\n")
            asking = HttpLoad(Plan(url=here.urls.public, duration=0.5, token_file=file), rate=20, path="/members")
            report = Report(asking._plan, [asking])
            with trio.fail_after(30):
                await run_load(report, lambda *_: None)
            found[name] = set(asking.statuses), report.kept
        told = report.json()

    assert found == {"good": ({"200"}, True), "bad": ({"401"}, False)}, "what is refused did not work"
    assert json.loads(told)["plan"]["token_file"] == str(file)


async def test_gets_come_at_the_asked_rate_however_slow_the_answers_are(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [SLOW]) as urls:
        plan = Plan(url=urls.public, duration=1)
        asking = HttpLoad(plan, rate=60, path="/slow?seconds=0.8")
        with trio.fail_after(30):
            await run_load(Report(plan, [asking]), lambda *_: None)

    assert asking.statuses == {"200": 60}  # 20 connections in turn would have come to 40
    assert min(asking.seconds) >= 0.8


async def test_a_host_that_swallows_connections_is_given_up(autojump_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with socket.create_connection(full.getsockname()), pytest.raises(trio.TooSlowError):
            async with open_stream(url):
                pass

    assert trio.current_time() <= 10


async def test_a_port_that_says_nothing_is_given_up_before_the_load_begins(autojump_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(trio.TooSlowError) as slow:
        await find_listening(Plan(url=f"http://127.0.0.1:{silent.getsockname()[1]}", duration=1))

    assert reason(slow.value) == "nothing came within 8 s"


async def test_whoever_answers_in_any_way_is_there_also_by_hanging_up() -> None:
    """As a proxy does while what is behind it restarts: each part knows how long it waits for that."""

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
            await find_listening(Plan(url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}", duration=1))
            nursery.cancel_scope.cancel()


async def test_a_handshake_that_is_cut_off_is_a_failure_to_connect() -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, reset, 0, host="127.0.0.1"))
        with pytest.raises(ConnectionResetError):
            async with open_stream(f"https://127.0.0.1:{listener.socket.getsockname()[1]}"):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("verb", "option"), [("load", "--duration"), ("load", "--http"), ("migrate", "--wait")])
@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
def test_a_number_without_end_is_a_sentence(
    verb: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_program(Program(PlatformSettings, []), [verb, option, value])

    assert ended.value.code == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_where_nobody_listens_that_is_said_at_once(
    capsys: pytest.CaptureFixture[str], json_option: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_program(
            Program(PlatformSettings, []),
            ["load", "http://127.0.0.1:9", "--duration", "80000", *json_option],
        )
    printed = capsys.readouterr()

    assert ended.value.code == 1
    assert printed.err == "http://127.0.0.1:9 does not answer: Connection refused\n"
    assert [json.loads(line)["kept"] for line in printed.out.splitlines()] == [False] * len(json_option)
