"""The metrics: what is read when somebody asks, and that clients can't add to the number of series."""

import json
import random
import time
from collections import Counter

import httpx2
import pytest
import trio

from service.platform.http.activities import Message, Receive, Scope, Send
from service.platform.http.requests import around
from service.platform.inside.readings import show_server
from service.platform.server import ServerStatistics
from service.platform.telemetry.logs import configure_logs
from service.platform.telemetry.metrics import Metrics
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.processes import open_websocket
from tests.platform.features import PLAIN, SLOW

# What operators were promised; dashboards and alerts build on the names.
PROMISED = {
    "http_server_request_duration_seconds_bucket",
    "http_server_active_requests",
    "websocket_connections",
    "websocket_closes_total",
    "database_unit_seconds_bucket",
    "database_connections",
    "database_waiting",
    "database_busy_total",
    "database_cancels_total",
    "server_connection_errors_total",
    "server_write_timeouts_total",
    "event_loop_lag_seconds_bucket",
    "trio_tasks",
    "service_phase",
    "service_info",
}


def samples(text: str) -> dict[str, float]:
    """Return the value of each series."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in lines}


def names(text: str) -> set[str]:
    return {series.partition("{")[0] for series in samples(text)}


async def test_a_running_service_shows_every_metric_that_was_promised(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", revision="4c1d2e7")
    async with booted(settings, [PLAIN, SLOW]) as urls, httpx2.AsyncClient() as client:
        await client.get(urls.public + "/plain")
        async with open_websocket(urls.public, "/wait") as waiting:
            await waiting.get_message()
            open_then = samples((await client.get(urls.management + "/metrics")).text)["websocket_connections"]
        answer = await client.get(urls.management + "/metrics")

    found = samples(answer.text)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert names(answer.text) >= PROMISED
    assert open_then == 1
    assert found['service_phase{phase="ready"}'] == 1
    assert [series for series in found if series.startswith("service_info") and 'revision="4c1d2e7"' in series]
    plain = 'http_request_method="GET",http_response_status_code="200",http_route="/plain"'
    assert found[f"http_server_request_duration_seconds_count{{{plain}}}"] == 1


async def test_ten_thousand_paths_methods_and_headers_add_no_series() -> None:
    metrics, statistics = Metrics(), ServerStatistics()

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        return

    surrounded = around(not_found, observe=show_server(metrics, statistics))
    made_up = random.Random(1)

    async def ask(method: str) -> None:
        headers = [(b"host", made_up.randbytes(8)), (b"x-request-id", b"%d" % made_up.randrange(10**9))]
        path = f"/{made_up.random()}"
        await surrounded(
            {"type": "http", "method": method, "path": path, "headers": headers, "client": (path, 1)}, nothing, send
        )

    await ask("GET")
    await ask("BREW")
    for code in range(1000, 1016):
        statistics.count_close(code, by_peer=True)
    statistics.count_close(4008, by_peer=False)  # what a feature says has a series of its own
    before = samples(metrics.text().decode())
    for number in range(10_000):
        await ask(f"BREW{number}" if number % 2 else "GET")
        statistics.count_close(1016 + number % 3984, by_peer=True)
    after = samples(metrics.text().decode())

    assert after.keys() == before.keys()
    assert sum(value for series, value in after.items() if series.startswith("websocket_closes_total")) == 10_017
    other = 'http_request_method="_OTHER",http_response_status_code="404",http_route="unmatched"'
    assert after[f"http_server_request_duration_seconds_count{{{other}}}"] == 5_001


@pytest.mark.parametrize("in_parts", [True, False])
async def test_an_answer_in_parts_takes_as_long_as_its_first(*, in_parts: bool) -> None:
    """Events last for minutes, as they are meant to, and a reader of a file may be slow: neither is a slow answer."""
    observed, moments = list[float](), [time.perf_counter()]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if in_parts:
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        moments.append(time.perf_counter())
        await trio.sleep(0.01)
        moments.append(time.perf_counter())
        if in_parts:
            await send({"type": "http.response.body", "body": b"another", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        return

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("127.0.0.1", 1)}
    await around(app, observe=lambda *told: observed.append(told[-1]))(scope, nothing, send)
    begun, first, later = moments

    assert (observed[0] <= first - begun) is in_parts
    assert (observed[0] >= later - first) is not in_parts


async def test_over_real_sockets_as_well(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [PLAIN]) as urls, httpx2.AsyncClient() as client:

        async def ask(path: str, method: str = "GET") -> None:
            await client.request(method, urls.public + path, headers={"X-Any": path, "User-Agent": path})

        await ask("/nowhere")
        await ask("/nowhere", "BREW")
        before = samples((await client.get(urls.management + "/metrics")).text)
        for number in range(200):
            await ask(f"/nowhere/{number}", ("GET", f"BREW{number}")[number % 2])
        after = samples((await client.get(urls.management + "/metrics")).text)

    # Units of the background may run for the first time meanwhile; their names come from code.
    assert not [series for series in after.keys() - before.keys() if not series.startswith("database_unit_seconds")]


def test_numbers_are_read_at_each_scrape() -> None:
    metrics, seen = Metrics(), Counter(a=1)
    metrics.counter("cups_total", "Cups.", lambda: seen, label="kind")
    metrics.gauge("tables", "Tables.", lambda: len(seen))
    first = samples(metrics.text().decode())
    seen["b"] = 2
    second = samples(metrics.text().decode())

    assert (first['cups_total{kind="a"}'], first["tables"]) == (1, 1)
    assert (second['cups_total{kind="b"}'], second["tables"]) == (2, 2)


@pytest.mark.parametrize("value", [0, False, ""])
def test_a_value_of_a_label_may_be_one_that_is_false(value: object) -> None:
    metrics = Metrics()
    metrics.gauge("seats", "Seats.", lambda: {value: 2, 1: 3}, label="table")

    seats = {series: number for series, number in samples(metrics.text().decode()).items() if "seats" in series}
    assert seats == {f'seats{{table="{value}"}}': 2, 'seats{table="1"}': 3}


def test_one_that_cannot_be_read_hides_no_other_and_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    metrics, seen = Metrics(), Counter[str]()
    metrics.gauge("broken", "Broken.", lambda: 1 / seen["none"])
    metrics.gauge("nothing", "No number.", lambda: None)  # type: ignore[arg-type,return-value]  # a mistake
    metrics.gauge("tables", "Tables.", lambda: 1)
    configure_logs("info", "json")
    first = samples(metrics.text().decode())
    metrics.text()
    seen["none"] = 2
    mended = samples(metrics.text().decode())

    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["tables"], mended["tables"], mended["broken"]) == (1, 1, 0.5)
    assert not {"broken", "nothing"} & first.keys()
    assert [(line["event"], line["metric"]) for line in told] == [
        ("metric not read", "broken"), ("metric not read", "nothing")
    ]  # fmt: skip
    assert "ZeroDivisionError" in told[0]["exception"]


def test_a_name_is_given_once_and_a_counter_says_that_it_is_one() -> None:
    metrics = Metrics()
    metrics.gauge("tables", "Tables.", lambda: 1)
    with pytest.raises(ValueError, match="already"):
        metrics.gauge("tables", "Tables.", lambda: 1)
    with pytest.raises(ValueError, match="_total"):
        metrics.counter("cups", "Cups.", lambda: 1)
