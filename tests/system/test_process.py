"""The process as a supervisor sees it: starts, signals, exit codes."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import trio
from trio_websocket import ConnectionClosed

from service.platform.settings import DRAIN_MARGIN
from service.platform.testing.fixtures import HEAD, waits_for_a_schema
from service.platform.testing.processes import (
    PATIENCE,
    ROOT,
    SERVICE,
    Process,
    close_code,
    environment,
    open_websocket,
    ready,
    run_to_end,
    started,
)
from tests.platform.server.wire import UPGRADE, Reader, get, stalled

QUICK: dict[str, Any] = {"drain_delay": 0, "drain_spread": 0}
WITH_FEATURES = (sys.executable, "-m", "tests.system.service_with")
# A request whose body has begun, and is as long as its client pleases.
BEGUN = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n12"


async def test_starts_answers_and_drains(tmp_path: Path, database_url: str) -> None:
    async with ready(tmp_path, "serve", database_url=database_url, **QUICK) as service:
        async with httpx2.AsyncClient() as client:
            for url in (service.public, service.management):
                for probe in ("/livez", "/readyz", "/healthz"):
                    answer = await client.get(url + probe)
                    assert (answer.status_code, answer.json()["status"]) == (200, "ok"), probe
                    assert answer.headers["cache-control"] == "no-store"
            assert (await client.get(service.management + "/startupz")).status_code == 200
            assert (await client.get(service.public + "/startupz")).status_code == 404
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0
        assert [line["event"] for line in service.events()][-1] == "stopped"
        assert service.events("ready")[0]["public"] == service.public
        assert service.complaints() == []


async def test_a_terminal_that_goes_drains_as_sigterm_does(tmp_path: Path, database_url: str) -> None:
    command = ("env", "--default-signal=HUP", *SERVICE)
    async with ready(tmp_path, "serve", command=command, database_url=database_url, **QUICK) as service:
        service.send(signal.SIGHUP)

        assert await service.wait_end() == 0
    assert [line["signal"] for line in service.events("draining")] == ["SIGHUP"]


async def test_a_terminal_that_goes_says_it_twice_and_that_is_no_second_signal(
    tmp_path: Path, database_url: str
) -> None:
    command = ("env", "--default-signal=HUP", *SERVICE)
    async with (
        ready(tmp_path, "serve", command=command, database_url=database_url, drain_delay=60) as service,
        httpx2.AsyncClient(timeout=PATIENCE) as client,
    ):
        service.send(signal.SIGHUP)
        await service.wait_event("draining")
        await trio.sleep(0.7)  # later than an echo
        service.send(signal.SIGHUP)  # from the shell, after the kernel's
        served = await client.get(service.public + "/livez")
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 128 + signal.SIGTERM
    assert served.status_code == 200


async def test_who_asks_for_the_tasks_too_early_ends_nothing(tmp_path: Path, database_url: str) -> None:
    with started(tmp_path, "serve", database_url=database_url, **QUICK) as service:
        handled = Path(f"/proc/{service.process.pid}/status")
        while not caught(handled, signal.SIGUSR1):
            await trio.sleep(0.001)
        service.send(signal.SIGUSR1)
        await service.wait_ready()
        before = service.events("starting")

    assert len(before) == 1


async def test_a_signal_that_means_something_to_other_servers_ends_nothing(tmp_path: Path, database_url: str) -> None:
    async with ready(tmp_path, "serve", database_url=database_url, **QUICK) as service, httpx2.AsyncClient() as client:
        service.send(signal.SIGUSR2)
        service.send(signal.SIGUSR1)
        await service.wait_event("tasks")
        answer = await client.get(service.public + "/readyz")
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0
    assert answer.status_code == 200


def caught(status: Path, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal: proc(5), SigCgt."""
    [line] = [line for line in status.read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


async def test_who_asks_for_no_sighup_gets_none(tmp_path: Path, database_url: str) -> None:
    command = ("env", "--ignore-signal=HUP", *SERVICE)  # as nohup does
    async with ready(tmp_path, "serve", command=command, database_url=database_url, **QUICK) as service:
        service.send(signal.SIGHUP)
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0
    assert [line["signal"] for line in service.events("draining")] == ["SIGTERM"]


async def test_while_routers_take_notice_of_a_drain_it_serves_and_says_that_it_is_not_ready(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        ready(tmp_path, "PLAIN", command=WITH_FEATURES, database_url=database_url, drain_delay=60) as service,
        httpx2.AsyncClient(timeout=PATIENCE) as client,
    ):
        service.send(signal.SIGTERM)
        await service.wait_event("draining")
        urls = (service.public, service.management)
        readiness = [(await client.get(url + "/readyz")).json() for url in urls]
        alive = [(await client.get(url + "/livez")).status_code for url in urls]
        late = await client.get(service.public + "/plain")

    assert readiness == [{"status": "fail", "reason": "draining"}] * 2
    assert alive == [200, 200]
    assert (late.status_code, late.headers["connection"]) == (200, "close")


async def test_a_drain_keeps_what_is_in_flight_and_says_goodbye(tmp_path: Path, database_url: str) -> None:
    """The request ends when its client says so: not before the websocket has been sent away."""
    settings = {**QUICK, "graceful_timeout": 60, "request_deadline": 60, "body_timeout": 60}
    async with (
        ready(tmp_path, "STREAMING", command=WITH_FEATURES, database_url=database_url, **settings) as service,
        httpx2.AsyncClient(timeout=PATIENCE) as operator,
        open_websocket(service.public, "/echo") as waiting,
    ):
        await waiting.send_message("waiting")
        assert await waiting.get_message() == "waiting"
        async with await trio.open_tcp_stream("127.0.0.1", int(service.public.rpartition(":")[2])) as client:
            await client.send_all(BEGUN)
            with trio.fail_after(PATIENCE):
                while (
                    "http_server_active_requests 1.0" not in (await operator.get(service.management + "/metrics")).text
                ):
                    await trio.sleep(0.02)
            service.send(signal.SIGTERM)
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionClosed) as closed:
                await waiting.get_message()
            await client.send_all(b"345")
            status, _, body = await Reader(client).response()

        assert await service.wait_end() == 0  # which it is not when the drain exceeds its bound
    assert close_code(closed.value) == 1012
    assert (status, body) == (200, b"5")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, database_url: str, number: signal.Signals) -> None:
    async with ready(tmp_path, "serve", database_url=database_url, drain_delay=60, graceful_timeout=60) as service:
        service.send(number)
        await service.wait_event("draining")
        await trio.sleep(0.7)  # an echo comes sooner: tests/platform/process/test_signals.py
        service.send(number)

        assert await service.wait_end() == 128 + number


@pytest.mark.parametrize("signals", [1, 2])
async def test_signals_work_as_pid_1(tmp_path: Path, database_url: str, signals: int) -> None:
    command = (*as_pid_1(), *SERVICE)
    delay = 0 if signals == 1 else 60
    async with ready(
        tmp_path, "serve", command=command, database_url=database_url, drain_delay=delay, graceful_timeout=60
    ) as service:
        [first] = children(service.process.pid)
        os.kill(first, signal.SIGTERM)
        if signals == 2:
            await service.wait_event("draining")
            await trio.sleep(0.7)
            os.kill(first, signal.SIGTERM)

        assert await service.wait_end() == (0 if signals == 1 else 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    "command", [SERVICE, (str(Path(sys.executable).parent / "service"),)], ids=["module", "script"]
)
async def test_a_signal_before_anything_is_open_ends_it_as_pid_1(
    tmp_path: Path, database_url: str, command: tuple[str, ...]
) -> None:
    with started(tmp_path, "serve", command=(*as_pid_1(), *command), database_url=database_url) as service:
        with trio.fail_after(PATIENCE):
            while service.process.poll() is None:  # those that come before the interpreter does are ignored
                for child in children(service.process.pid):
                    os.kill(child, signal.SIGTERM)
                await trio.sleep(0.01)

        assert await service.wait_end() == 128 + signal.SIGTERM
        assert service.events() == []


def as_pid_1() -> tuple[str, ...]:
    """Return what makes a command the first process of a namespace."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urpf", "true"], check=False).returncode:
        pytest.skip("needs unshare and the right to make a pid namespace")
    return unshare, "-Urpf", "--kill-child"


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@waits_for_a_schema
async def test_a_signal_while_it_waits_for_its_schema_ends_it(tmp_path: Path, empty_database_url: str) -> None:
    with started(tmp_path, "serve", database_url=empty_database_url) as service:
        await service.wait_event("schema seen")
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0
    [never] = service.events("never ready")
    assert never["reason"] == f"the schema is behind: at nothing yet, this code needs {HEAD}"


async def test_a_signal_while_it_waits_for_the_database_says_that_it_never_was_ready(tmp_path: Path) -> None:
    nowhere = "postgresql://me:hunter2@127.0.0.1:1/db"
    with started(tmp_path, "serve", database_url=nowhere) as service:
        await wait_answering(service)
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0
    [never] = service.events("never ready")
    assert never["level"] == "warning"
    assert never["reason"].startswith("the database cannot be reached: ")
    assert "hunter2" not in service.log.read_text()


async def test_what_an_earlier_process_wrote_when_it_was_ready_is_gone_while_this_one_is_not(tmp_path: Path) -> None:
    """Whoever waits for the file would take the ports of a process that has ended for those of this one."""
    earlier = tmp_path / "ready.json"
    earlier.write_text('{"public": "http://127.0.0.1:1"}')
    nowhere = "postgresql://me@127.0.0.1:1/db"
    with started(tmp_path, "serve", database_url=nowhere, ready_file=earlier) as service:
        await service.wait_event("database away")

        assert not earlier.exists()


async def test_a_signal_while_its_features_are_being_opened_ends_it(tmp_path: Path, database_url: str) -> None:
    with started(tmp_path, "PLAIN", "LATE", command=WITH_FEATURES, database_url=database_url) as service:
        await service.wait_event("opening")
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0
    [never] = service.events("never ready")
    assert never["reason"] == "features were still being opened"
    assert not service.events("ready")
    assert not service.ready_file.exists()


async def wait_answering(service: Process) -> None:
    """Wait until the process has begun its life: it writes its tasks to the log when asked to."""
    await service.wait_event("starting")
    with trio.fail_after(PATIENCE):
        while not service.events("tasks"):
            service.send(signal.SIGUSR1)
            await trio.sleep(0.1)


@waits_for_a_schema
async def test_it_waits_alive_and_not_started_until_its_schema_is_there(
    tmp_path: Path, empty_database_url: str
) -> None:
    host = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # no other test's
    binds = {"bind": f"{host}:18000", "management_bind": f"{host}:19000"}
    with started(tmp_path, "serve", database_url=empty_database_url, **binds) as service:
        seen = await service.wait_event("schema seen")
        async with httpx2.AsyncClient(base_url=f"http://{host}:19000") as operator:
            probes = {path: (await operator.get(path)).status_code for path in ("/livez", "/startupz", "/readyz")}
            with pytest.raises(httpx2.ConnectError):  # nothing listens yet that would let a client hang
                await operator.get(f"http://{host}:18000/readyz")
            migrated = run_to_end(tmp_path, "migrate", database_url=empty_database_url)
            await service.wait_ready()
            ready_now = (await operator.get("/readyz")).status_code

    assert "run `service migrate`" in seen["meaning"]
    assert probes == {"/livez": 200, "/startupz": 503, "/readyz": 503}
    assert (migrated.returncode, migrated.stdout) == (0, f"migrated from nothing to {HEAD}\n")
    assert ready_now == 200


async def test_a_drain_has_a_bound_whatever_does_not_end(tmp_path: Path, database_url: str) -> None:
    settings = {**QUICK, "graceful_timeout": 1, "request_deadline": 1}
    async with ready(tmp_path, "STUBBORN", command=WITH_FEATURES, database_url=database_url, **settings) as service:
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 1
    [exceeded] = service.events("the drain exceeded its bound: ending at once")
    assert exceeded["seconds"] == 1 + DRAIN_MARGIN


async def test_peers_that_do_not_read_do_not_lengthen_the_drain(tmp_path: Path, database_url: str) -> None:
    settings = {**QUICK, "graceful_timeout": 1, "request_deadline": 1, "write_timeout": 60, "rate_per_address": 0}
    async with ready(tmp_path, "STREAMING", command=WITH_FEATURES, database_url=database_url, **settings) as service:
        port = int(service.public.rpartition(":")[2])
        clients = [await stalled(port, request) for request in [get("/stream"), UPGRADE % (b"/pump", b"")] * 25]
        await trio.sleep(0.3)
        service.send(signal.SIGTERM)
        code = await service.wait_end()
        for client in clients:
            await client.aclose()

    [draining] = service.events("draining")
    assert code == 0  # not the end that an exceeded bound makes
    assert draining["at_most"] == 1 + DRAIN_MARGIN


@pytest.mark.parametrize("streams", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_a_drain_is_a_drain_when_nobody_reads_what_is_said(
    tmp_path: Path, database_url: str, streams: str
) -> None:
    buffered = ("env", "-u", "PYTHONUNBUFFERED")
    command = ("sh", "-c", f'exec "$@" {streams}', "sh", *buffered, *SERVICE)
    async with ready(tmp_path, "dev", command=command, database_url=database_url, **QUICK) as service:
        async with httpx2.AsyncClient() as client:
            assert (await client.get(service.public + "/readyz")).status_code == 200
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://ada:secret@127.0.0.1:1080",
        "foo://ada:secret@127.0.0.1",
        "http://ada:secret@[::1",
        "http://ada:secret@h:x",
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_at_the_start(tmp_path: Path, database_url: str, proxy: str) -> None:
    env = ("env", "-u", "http_proxy", f"ALL_PROXY={proxy}", *SERVICE)
    known = {"database_url": database_url, "auth_issuer": "http://127.0.0.1:9", "auth_audience": "orders"}
    known |= {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}  # no port that somebody else may have
    served = run_to_end(tmp_path, "serve", command=env, **QUICK, **known)
    checked = run_to_end(tmp_path, "check", command=env, **known)
    said = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: must be such as http://proxy.example.org:3128, not "

    assert (served.returncode, checked.returncode) == (2, 1)
    assert served.stderr.splitlines()[-1].startswith(said)
    assert [line for line in checked.stdout.splitlines() if f"FAIL  identity     {said}" in line]
    assert not [one for one in (served, checked) if "secret" in one.stdout + one.stderr or "Traceback" in one.stderr]


@pytest.mark.parametrize("streams", [">/dev/full", ">/dev/full 2>&1"])
def test_a_verb_whose_answer_cannot_be_written_fails(tmp_path: Path, streams: str) -> None:
    command = ("sh", "-c", f'exec "$@" {streams}', "sh", "env", "-u", "PYTHONUNBUFFERED", *SERVICE, "settings")
    env = environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)

    assert done.returncode == 1
    assert done.stderr == ("" if "2>&1" in streams else "the output cannot be written: No space left on device\n")


async def test_a_drain_is_one_when_the_reader_is_gone(tmp_path: Path, database_url: str) -> None:
    command = ("sh", "-c", 'mkfifo lost; true < lost & exec "$@" > lost 2>&1', "sh", *SERVICE)
    async with ready(tmp_path, "dev", command=command, database_url=database_url, **QUICK) as service:
        service.send(signal.SIGTERM)

        assert await service.wait_end() == 0


async def test_a_log_whose_disk_was_full_has_whole_lines_again_and_says_how_many_are_missing(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        ready(tmp_path, "serve", database_url=database_url, rate_per_address=0, slow_step=0, **QUICK) as service,
        httpx2.AsyncClient() as client,
    ):  # a busy machine's slow steps would be lines as well
        pid, requests = service.process.pid, 20
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        full = service.log.stat().st_size + 100  # bytes: half a line more
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, unlimited[1]))
        answers = [(await client.get(service.public + "/openapi.json")).status_code for _ in range(requests)]
        told, metrics = f"log_lines_lost_total {requests}.0\n", ""
        with trio.fail_after(PATIENCE):  # an answer is there before its line is
            while told not in metrics:
                metrics = (await client.get(service.management + "/metrics")).text
        in_full = service.log.stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        answers.append((await client.get(service.public + "/openapi.json")).status_code)
        metrics = (await client.get(service.management + "/metrics")).text
        lines = service.log.read_text().splitlines()

    assert answers == [200] * (requests + 1)
    assert in_full == full
    [cut] = [number for number, line in enumerate(lines) if not line.endswith("}")]
    request, lost = (json.loads(line) for line in lines[cut + 1 :])
    assert (request["event"], lost["event"], lost["lines"]) == ("request", "log lines lost", requests)
    assert told in metrics


async def test_a_log_that_nobody_reads_holds_up_nobody(tmp_path: Path, database_url: str) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    command = ("sh", "-c", 'exec "$@" 2> log', "sh", *SERVICE)
    requests = 600  # a line each: twice what a pipe takes
    async with (
        ready(tmp_path, "serve", command=command, database_url=database_url, rate_per_address=0, **QUICK) as service,
        httpx2.AsyncClient(timeout=30) as client,
    ):
        answered = [(await client.get(f"{service.public}/{'x' * 400}")).status_code for _ in range(requests)]
        probed = (await client.get(service.management + "/livez")).status_code
        service.send(signal.SIGTERM)
        code = await service.wait_end()
    read = os.read(reader, 1 << 20)
    os.close(reader)

    assert (answered, probed, code) == ([404] * requests, 200, 0)
    assert len(read) < requests * 400  # it was full


async def test_nothing_is_waited_for_once_it_has_stopped(tmp_path: Path, database_url: str) -> None:
    features = ("LINGERING",)
    async with ready(tmp_path, *features, command=WITH_FEATURES, database_url=database_url, **QUICK) as service:
        service.send(signal.SIGTERM)
        code = await service.wait_end()  # a thread that never ends would hold the interpreter's own end for ever
        ended = time.time()

    last, wish = service.log.read_text().splitlines()[-2:]
    stopped = json.loads(last)
    print(f"ended {ended - datetime.fromisoformat(stopped['timestamp']).timestamp():.3f} s after it said stopped")
    assert (code, stopped["event"]) == (0, "stopped")
    assert wish == "done at exit"


async def test_a_kill_between_commit_and_answer_loses_no_order_and_doubles_none(
    tmp_path: Path, writable_database_url: str
) -> None:
    command, settings = WITH_FEATURES, {**QUICK, "database_url": writable_database_url}
    key = {"Idempotency-Key": "order-1"}
    with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as database:
        database.execute("CREATE TABLE placed (number serial PRIMARY KEY)")
        async with httpx2.AsyncClient() as client:
            async with ready(tmp_path, "DYING", command=command, **settings) as service:
                with pytest.raises(httpx2.RemoteProtocolError):
                    await client.post(service.public + "/orders", headers=key)
                killed = await service.wait_end()
            async with ready(tmp_path, "DYING", command=command, **settings) as service:
                answers = [await client.post(service.public + "/orders", headers=key) for _ in range(2)]
        placed = database.execute("SELECT number FROM placed").fetchall()

    assert killed == -signal.SIGKILL
    assert [(answer.status_code, answer.json()) for answer in answers] == [(201, {"number": 1})] * 2
    assert placed == [(1,)]


@pytest.mark.parametrize(("how", "told"), [("", "Planted: in the background"), ("?leaves=yes", "SystemExit: 0")])
async def test_the_crash_of_a_background_task_ends_the_process(
    tmp_path: Path, database_url: str, how: str, told: str
) -> None:
    features = ("CRASHING", "SLOW")
    async with (
        ready(tmp_path, *features, command=WITH_FEATURES, database_url=database_url) as service,
        httpx2.AsyncClient() as client,
        open_websocket(service.public, "/wait") as waiting,
    ):
        await waiting.get_message()
        await client.post(f"{service.public}/light{how}", json={})
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionClosed) as closed:
            await waiting.get_message()

        assert close_code(closed.value) == 1011
        assert await service.wait_end() == 1
        [crash] = service.events("crashed")
        assert told in crash["exception"]
        assert crash["task"].startswith("tests.platform.features.open_crashing.")


def test_a_crash_beside_a_wrong_setting_is_told_as_both_and_is_a_crash(tmp_path: Path, database_url: str) -> None:
    done = run_to_end(tmp_path, "TORN", command=WITH_FEATURES, database_url=database_url)

    *log, said = done.stderr.splitlines()
    crash = json.loads(said)
    assert done.returncode == 1
    assert "SERVICE_TORN_URL: cannot be used" in log
    assert (crash["event"], "at its end" in crash["exception"]) == ("crashed", True)


def test_a_misspelt_setting_stops_the_start(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "serve", bnid="x")

    assert done.returncode == 2
    assert done.stderr == "SERVICE_BNID: no such setting; did you mean SERVICE_BIND?\n"


def test_a_wrong_value_stops_the_start(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "serve", max_requests="lots", database_url="postgresql://me:hunter2@h/db")

    assert done.returncode == 2
    assert done.stderr == "SERVICE_MAX_REQUESTS: 'lots' must be a whole number from 1 to 100000\n"


def test_serve_without_a_database_names_what_to_do(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "serve")

    assert (done.returncode, done.stdout) == (2, "")
    assert "SERVICE_DATABASE_URL" in done.stderr
    assert "service dev" in done.stderr


@pytest.mark.parametrize("setting", ["bind", "management_bind"])
def test_a_taken_port_names_its_setting(tmp_path: Path, database_url: str, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        binds = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", setting: address}
        done = run_to_end(tmp_path, "serve", database_url=database_url, **binds)

    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"SERVICE_{setting.upper()}: {address} is already in use; choose another")


def test_the_password_appears_in_no_output(tmp_path: Path) -> None:
    secret = "postgresql://me:hunter2@127.0.0.1:1/db"
    for verb in (["settings"], ["check"], ["migrate", "--wait", "0"]):
        done = run_to_end(tmp_path, *verb, database_url=secret, log_level="debug")
        assert "hunter2" not in done.stdout + done.stderr, verb


@pytest.mark.parametrize("verb", ["dev", "serve", "migrate", "settings", "check"])
def test_every_verb_has_help_with_an_example(tmp_path: Path, verb: str) -> None:
    done = run_to_end(tmp_path, verb, "--help")

    assert done.returncode == 0
    assert "Example:" in done.stdout


def test_service_and_python_m_service_are_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "service"
    done = subprocess.run(
        [script, "--help"], env=environment(), capture_output=True, text=True, check=True, timeout=PATIENCE
    )

    assert done.stdout == run_to_end(tmp_path, "--help").stdout


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bind": "no-such-host.invalid:8000"}, "SERVICE_BIND: no-such-host.invalid:8000 cannot be used: "),
        ({"bind": f"{'x' * 64}.example:8000"}, f"SERVICE_BIND: {'x' * 64}.example:8000 cannot be used: "),
        ({"management_bind": "a..b:9000"}, "SERVICE_MANAGEMENT_BIND: a..b:9000 cannot be used: "),
        ({"bind": ":8000"}, "SERVICE_BIND: ':8000' must say where to listen: 127.0.0.1:8000 for this machine alone"),
        ({"ready_file": "/no/such/folder/ready.json"}, "SERVICE_READY_FILE: /no/such/folder is no directory"),
        ({"ready_file": "/usr"}, "SERVICE_READY_FILE: /usr is a directory; name a file"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_address_or_file_that_cannot_be_used_stops_the_start(
    tmp_path: Path, database_url: str, settings: dict[str, str], said: str
) -> None:
    given = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "database_url": database_url} | settings
    done = run_to_end(tmp_path, "serve", **given)

    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(said)
    assert "Traceback" not in done.stderr
