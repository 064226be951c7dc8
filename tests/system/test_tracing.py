"""Traces of a real process, at a collector that listens, dies, or never answers."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from service.platform.name import NAME
from service.platform.settings import TRACES
from service.platform.testing.processes import PATIENCE, ROOT, SERVICE, Process, open_websocket, ready, run_to_end
from tests.platform.collector import Collector, Span, collecting
from tests.system.test_process import QUICK, WITH_FEATURES

CALLER = "ab" * 16
SERVER, CLIENT = 2, 3  # kinds of spans


@asynccontextmanager
async def traced(
    directory: Path, database_url: str, endpoint: str, *variables: str, feature: str = "TRACED", **settings: Any
) -> AsyncIterator[Process]:
    """Yield a process that sends its spans to `endpoint`, soon."""
    given = f"{TRACES}={endpoint}", "OTEL_BSP_SCHEDULE_DELAY=100", *variables  # the later of two counts
    command = ("env", *given, *WITH_FEATURES)
    given_too = {"slow_step": 0.5, **QUICK, **settings}  # what a busy machine does is not what they look for
    async with ready(directory, feature, command=command, database_url=database_url, **given_too) as service:
        yield service


async def spans_total(client: httpx2.AsyncClient, service: Process) -> dict[str, float]:
    text = (await client.get(service.management + "/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("tracing_spans_total")]
    return {series.partition('"')[2].partition('"')[0]: float(value) for series, _, value in lines}


def the_one(collector: Collector, name: str, **attributes: Any) -> Span:
    [span] = [s for s in collector.spans if s.name == name and attributes.items() <= s.attributes.items()]
    return span


async def test_a_request_its_units_and_what_their_threads_do_are_one_trace(tmp_path: Path, database_url: str) -> None:
    async with (
        collecting() as collector,
        traced(
            tmp_path, database_url, collector.url, "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test"
        ) as service,
        httpx2.AsyncClient() as client,
    ):
        caller = {"traceparent": f"00-{CALLER}-{'cd' * 8}-01"}
        await client.get(service.public + "/traced/hunter2?token=hunter3", headers=caller)
        await client.get(service.public + "/broken")
        await client.get(service.public + "/nowhere")
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(service.public + "/cut")
        for name in ("GET /traced/<name>", "GET /broken", "GET", "GET /cut", "select_nothing_there"):
            await collector.wait_for(name)
        with trio.fail_after(PATIENCE):
            while (counted := await spans_total(client, service))["exported"] < 5:  # counted once it has answered
                await trio.sleep(0.02)

    request, unit = the_one(collector, "GET /traced/<name>"), the_one(collector, "select_traced")
    thread = the_one(collector, "on the thread")
    assert {span.trace_id for span in (request, unit, thread)} == {CALLER}
    assert (request.parent_id, unit.parent_id, thread.parent_id) == ("cd" * 8, request.span_id, request.span_id)
    assert (request.kind, unit.kind) == (SERVER, CLIENT)
    assert 0 < unit.seconds <= request.seconds
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/traced/<name>",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/traced/hunter2",
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
    }
    assert request.resource["service.name"] == NAME
    assert request.resource["deployment.environment.name"] == "test"
    assert "hunter3" not in str(collector.spans)
    assert [line["trace_id"] for line in service.events("request")][:1] == [CALLER]

    broken, nowhere = the_one(collector, "GET /broken"), the_one(collector, "GET")
    assert (broken.failed, nowhere.failed) == (True, False)
    assert broken.attributes["error.type"] == "500"
    assert the_one(collector, "GET /cut").attributes["error.type"] == "503"
    assert the_one(collector, "select_nothing_there").failed
    assert service.events("refused by PostgreSQL")[0]["trace_id"] == broken.trace_id
    assert counted["failed"] == 0


async def test_a_job_is_a_trace_that_its_lines_name_linked_to_the_request(
    tmp_path: Path, writable_database_url: str
) -> None:
    async with (
        collecting() as collector,
        traced(tmp_path, writable_database_url, collector.url, feature="ENQUEUING") as service,
        httpx2.AsyncClient() as client,
    ):
        number = int((await client.get(service.public + "/enqueue")).text)
        await collector.wait_for("GET /enqueue")
        spans = await collector.wait_for("job be_traced", 2)  # the attempt, and its unit of work

    [span] = [each for each in spans if each.parent_id == ""]
    [line] = service.events("done as a job")
    assert (line["job"], line["job_id"], line["trace_id"]) == ("be_traced", number, span.trace_id)
    assert span.links == [the_one(collector, "GET /enqueue").span_id]


async def test_each_message_of_a_websocket_is_a_trace_linked_to_the_upgrade(tmp_path: Path, database_url: str) -> None:
    async with collecting() as collector, traced(tmp_path, database_url, collector.url) as service:
        async with open_websocket(service.public, "/traced") as socket:
            for text in ("hunter2", "again"):
                await socket.send_message(text)
                await socket.get_message()
        first, second = await collector.wait_for("message /traced", 2)
        units = await collector.wait_for("select_traced", 2)

    upgrade = the_one(collector, "GET /traced")
    assert upgrade.attributes["http.response.status_code"] == 101
    assert len({span.trace_id for span in (upgrade, first, second)}) == 3
    assert first.links == second.links == [upgrade.span_id]
    assert [unit.parent_id for unit in units] == [first.span_id, second.span_id]
    assert "hunter2" not in str(collector.spans)


async def test_the_share_that_is_sampled_is_opentelemetrys_setting_and_the_end_exports_the_rest(
    tmp_path: Path, database_url: str
) -> None:
    variables = "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.2", "OTEL_BSP_SCHEDULE_DELAY=60000"
    async with (
        collecting() as collector,
        traced(tmp_path, database_url, collector.url, *variables) as service,
        httpx2.AsyncClient() as client,
    ):
        for number in range(100):  # the last half of an id decides: these are evenly spread
            trace_id = f"{'ab' * 8}{(2 * number + 1) * 2**64 // 200:016x}"
            await client.get(service.public + "/traced/x", headers={"traceparent": f"00-{trace_id}-{'cd' * 8}-01"})
        assert not collector.spans
        service.send(signal.SIGTERM)
        assert await service.wait_end() == 0

    assert len([span for span in collector.spans if span.name == "GET /traced/<name>"]) == 20
    assert len([span for span in collector.spans if span.name == "select_traced"]) == 20
    assert len([line for line in service.events("request") if "trace_id" in line]) == 100


async def seconds_to_end(service: Process) -> float:
    """Return what the process's own log says between the last it does for others and its end."""
    service.send(signal.SIGTERM)
    assert await service.wait_end() == 0
    assert not [line for line in service.events("event loop held") if "opentelemetry" in line["stack"]]
    left, ended = (datetime.fromisoformat(service.events(name)[-1]["timestamp"]) for name in ("leaving", "stopped"))
    return (ended - left).total_seconds()


async def test_a_collector_that_is_gone_costs_a_counter_and_one_line(tmp_path: Path, database_url: str) -> None:
    async with (
        traced(tmp_path, database_url, "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT=1") as service,
        httpx2.AsyncClient() as client,
    ):
        for _ in range(3):
            assert (await client.get(service.public + "/traced/x")).status_code == 200
        with trio.fail_after(PATIENCE):
            while (await spans_total(client, service))["failed"] < 9:
                await trio.sleep(0.1)
        complaints = service.complaints()
        seconds = await seconds_to_end(service)

    assert complaints == ["traces not exported"]
    assert seconds < 5


async def test_a_collector_that_never_answers_holds_up_no_end(tmp_path: Path, database_url: str) -> None:
    async with (
        collecting(silent=True) as collector,
        traced(tmp_path, database_url, collector.url) as service,
        httpx2.AsyncClient() as client,
    ):
        assert (await client.get(service.public + "/traced/x")).status_code == 200
        with trio.fail_after(PATIENCE):
            while not collector.requests:
                await trio.sleep(0.02)
        seconds = await seconds_to_end(service)

    print(f"the end took {seconds:.2f} s while the collector was hanging")
    assert 0.5 < seconds < 5  # 0.8 s by construction; the rest is a busy machine's


async def test_without_the_packages_one_line_says_what_to_install(tmp_path: Path) -> None:
    hidden = tmp_path / "opentelemetry"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('not here')")
    command = ["env", f"{TRACES}=http://127.0.0.1:9", f"PYTHONPATH={tmp_path}:{ROOT}", *SERVICE, "serve"]
    run = partial(subprocess.run, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=tmp_path)
    settings = {"SERVICE_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x", "SERVICE_BIND": "127.0.0.1:0"}
    done = await trio.to_thread.run_sync(
        partial(run, ["env", *(f"{n}={v}" for n, v in settings.items()), *command[1:]])
    )

    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 2
    assert line.startswith(f"{TRACES}: is set, and OpenTelemetry is missing")
    assert "`make install EXTRAS=otel`" in line


async def test_nothing_of_it_is_imported_unless_it_is_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys, service.platform.process.main, service.platform.verbs.dev\n"
        "from service.platform.telemetry.tracing import open_tracing\n"
        "with open_tracing(wanted=False) as tracing:\n"
        "    assert tracing is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    run = partial(subprocess.run, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=ROOT)
    done = await trio.to_thread.run_sync(partial(run, [sys.executable, "-c", code]))

    assert done.stdout.strip() == "[]", done.stderr


async def refused(directory: Path, *variables: str) -> tuple[int, str]:
    """Start it with these of OpenTelemetry's variables; return the exit code, and what it said when it had ended."""
    command = ("env", f"{TRACES}=http://127.0.0.1:9", *variables, *SERVICE)
    given = {"database_url": "postgresql://nobody@127.0.0.1:9/x"}
    done = await trio.to_thread.run_sync(partial(run_to_end, directory, "serve", command=command, **given))
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE=100000", "max_export_batch_size"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=many", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
        ("OTEL_PROPAGATORS=tracecontex", "tracecontex"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER=keyring", "keyring"),
    ],
)
async def test_what_opentelemetry_does_not_take_is_a_sentence(tmp_path: Path, variable: str, told: str) -> None:
    code, said = await refused(tmp_path, variable)

    [line] = said.splitlines()
    assert code == 2
    assert line.startswith("OTEL_*: ")
    assert told in line


async def test_headers_that_cannot_be_read_are_told_without_what_is_in_them(tmp_path: Path, database_url: str) -> None:
    headers = "OTEL_EXPORTER_OTLP_HEADERS=Authorization: Bearer hunter2,hunter3,a=b"
    async with collecting() as collector, traced(tmp_path, database_url, collector.url, headers) as service:
        pass

    told, _ = service.events("header of traces not read")  # a line for each
    assert told["variable"] == "OTEL_EXPORTER_OTLP_HEADERS"
    assert "name=value" in told["must_be"]
    assert "hunter" not in service.log.read_text()


async def test_spans_for_which_a_slow_collector_leaves_no_room_are_counted(tmp_path: Path, database_url: str) -> None:
    small = "OTEL_BSP_MAX_QUEUE_SIZE=4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=2", "OTEL_EXPORTER_OTLP_TIMEOUT=1"
    async with (
        collecting(silent=True) as collector,
        traced(tmp_path, database_url, collector.url, *small) as service,
        httpx2.AsyncClient() as client,
    ):
        for _ in range(20):
            assert (await client.get(service.public + "/traced/x")).status_code == 200
        with trio.fail_after(PATIENCE):
            while (await spans_total(client, service))["failed"] < 3 * 20:  # each request makes three
                await trio.sleep(0.1)
        seen = await spans_total(client, service)

    assert seen == {"exported": 0, "failed": 60}
