"""The verbs that ask a running process, as an operator types them."""

import json
import re
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio

from service.platform.database.migrate import migrate
from service.platform.name import NAME, version
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import ready, run_to_end
from service.platform.verbs import Program, inspect, jobs_report, run_program
from service.platform.verbs.inspect import AskError, ask, paint
from service.platform.verbs.where import local_url
from tests.platform.database.proxy import open_proxy
from tests.platform.upgrades import settings_for
from tests.system.test_process import QUICK, WITH_FEATURES

type Typed = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    """Return what runs `service ARGUMENTS` to its end."""

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await trio.to_thread.run_sync(partial(run_to_end, tmp_path, *arguments))

    return run


async def test_they_show_a_running_process(tmp_path: Path, database_url: str, typed: Typed) -> None:
    long = {"request_deadline": 60, "graceful_timeout": 60}
    settings = {"database_url": database_url, "revision": "4c1d2e7", "command": WITH_FEATURES, **QUICK, **long}
    async with (
        ready(tmp_path, "HOLDING", **settings) as service,
        httpx2.AsyncClient(timeout=60) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.get, service.public + "/hang")
        url = service.management
        info, text, document, before, changed = [
            await typed(*arguments)
            for arguments in (
                ("info", url),
                ("tasks", url),
                ("tasks", url, "--json"),
                ("loglevel", url),
                ("loglevel", url, "--set", "debug", "--seconds", "60"),
            )
        ]
        elsewhere = await typed("info", service.public)
        told = service.events("log level changed")
        nursery.cancel_scope.cancel()

    lines = dict(line.split(maxsplit=1) for line in info.stdout.splitlines() if not line.startswith("schema"))
    assert list(lines)[:4] == ["version", "revision", "phase", "started"]
    assert (lines["revision"], lines["phase"], lines["hypercorn"]) == ("4c1d2e7", "ready", "0.18.0")
    assert "schema state       at" in info.stdout
    assert "[GET /hang for " in text.stdout
    assert "\x1b" not in text.stdout  # it is no terminal
    assert "tests/platform/features.py" in text.stdout
    assert json.loads(document.stdout)["tasks"]["task"] == "<init>"
    assert before.stdout == "info, as usual\n"
    assert changed.stdout in {f"debug for {seconds} s more, then info again\n" for seconds in (59, 60)}
    assert [line["to"] for line in told] == ["debug"]
    assert elsewhere.returncode == 1
    assert "the management listener is wanted" in elsewhere.stderr
    assert len(elsewhere.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("http://127.0.0.1:9", 1, "http://127.0.0.1:9 does not answer: Connection refused"),
        ("http://no.such.name.invalid:9000", 1, "does not answer"),
        ("127.0.0.1:9000", 2, "must start with http://"),
        ("http://127.0.0.1:port", 2, "is not an address"),
        ("http://", 2, "is not an address"),
        ("http://[::1", 2, "is not an address"),
    ],
)
async def test_a_wrong_address_is_one_line_and_a_code(url: str, code: int, words: str) -> None:
    with pytest.raises(AskError, match=re.escape(words)) as caught:
        await ask(url, "/tasks")

    assert caught.value.code == code
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("document", ["{}", "[]", "7", '{"counts": 7, "jobs": [7], "level": 7, "seconds_left": "x"}'])
@pytest.mark.parametrize(
    "question",
    [
        inspect.facts,
        inspect.level,
        jobs_report.counts,
        partial(jobs_report.some, query=""),
        partial(jobs_report.one, id=7, change="retry"),
        partial(jobs_report.of_a_kind, query="kind=x", change="retry"),
    ],
)
async def test_another_service_s_answer_is_one_line(
    question: Callable[[str], Awaitable[str]], document: str, nursery: trio.Nursery
) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(document)}\r\n\r\n{document}".encode()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    host, port = listener.socket.getsockname()

    with pytest.raises(AskError, match=rf"{port}\S* answers something else: is that the management listener\?"):
        await question(f"http://{host}:{port}")


async def test_the_verb_ends_with_that_code(typed: Typed) -> None:
    done = await typed("tasks", "127.0.0.1:9000")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "127.0.0.1:9000: must start with http:// or https://\n"


@pytest.mark.parametrize("verb", ["smoke", "load", "jobs --url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://", "http://127.0.0.1:port", "http://[::1", "http://a..example", "::1",
        "http://bücher.localhost:9", "http://127.0.0.1:9/a b",
    ],
)  # fmt: skip
async def test_no_client_takes_what_is_no_address(typed: Typed, verb: str, url: str) -> None:
    done = await typed(*verb.split(), url)

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"{re.escape(url)}: (is not an address: |must start with )[^\n]+\n", done.stderr)
    assert "NoneType" not in done.stderr


@pytest.mark.parametrize(("verb", "option"), [("load", "--path"), ("load", "--host"), ("smoke", "--host")])
@pytest.mark.parametrize("value", ["/a b", "bücher", "/\n"])
def test_what_no_request_holds_is_a_sentence(
    verb: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_program(Program(PlatformSettings, []), [verb, "http://127.0.0.1:9", option, value])

    assert ended.value.code == 2
    assert re.fullmatch(rf"{option}: {re.escape(repr(value))} is [^\n]+\n", capsys.readouterr().err)


@pytest.mark.parametrize("verb", ["info", "tasks", "loglevel", "smoke", "load", "load --json", "jobs --url"])
@pytest.mark.parametrize("url", ["http://me:hunter2@127.0.0.1:9", "http://me:hunter2@127.0.0.1:port", "me:hunter2@h"])
async def test_a_password_in_an_address_is_not_repeated(typed: Typed, verb: str, url: str) -> None:
    done = await typed(*verb.split(), url)

    assert done.returncode in {1, 2}
    assert url.rpartition("@")[2] in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


async def test_without_an_address_they_ask_the_service_of_these_settings(tmp_path: Path, database_url: str) -> None:
    async with ready(tmp_path, "HOLDING", database_url=database_url, command=WITH_FEATURES, **QUICK) as service:
        binds = {"management_bind": service.management.removeprefix("http://")}
        done = [
            await trio.to_thread.run_sync(partial(run_to_end, tmp_path, *words, **binds))
            for words in (("info",), ("jobs",), ("jobs", "list"))
        ]
    unknown = run_to_end(tmp_path, "info", management_bind="127.0.0.1:0")

    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert "phase              ready" in done[0].stdout
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "SERVICE_MANAGEMENT_BIND: is 127.0.0.1:0, any free port, so name the URL\n"


async def test_what_keeps_the_service_is_told_and_not_that_it_does_not_answer(
    tmp_path: Path, one_server: OwnServer, typed: Typed
) -> None:
    """It gives up at its deadline, with a reason; who asks must wait for that."""
    migrate(settings_for(one_server.url))
    async with open_proxy(one_server.port) as proxy:
        given = {**QUICK, "database_url": proxy.url(), "request_deadline": 10, "graceful_timeout": 10}
        async with ready(tmp_path, "HOLDING", command=WITH_FEATURES, **given) as service:
            assert (await typed("jobs", "--url", service.management)).returncode == 0
            proxy.mute()
            done = await typed("jobs", "--url", service.management)

    assert done.returncode == 1
    assert done.stderr == f"{service.management}/jobs says 504: the request took longer than 10 seconds\n"


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("[::]:9000", "http://127.0.0.1:9000"),  # where there is no IPv6 it listens on IPv4 alone
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("127.0.0.2:81", "http://127.0.0.2:81"),
    ],
)
def test_a_listener_is_reached_from_here(bind: str, url: str) -> None:
    assert local_url(bind) == url


def test_in_a_terminal_the_tree_is_painted_and_says_the_same() -> None:
    text = "main\n│  at service/main.py:86 main\n├─ task  [GET /x for 1.0 s]\n│     (deadline in 1.0 s)\n\nthreads"
    painted = [paint(line) for line in text.splitlines()]

    assert re.sub(r"\x1b\[\d*m", "", "\n".join(painted)) == text
    assert painted[0].startswith("\x1b[1m")  # bold
    assert "\x1b[2mat service" in painted[1]  # dim
    assert "\x1b[36m  [GET /x" in painted[2]  # cyan


async def test_the_version_is_told(typed: Typed) -> None:
    done = await typed("--version")

    assert (done.returncode, done.stdout) == (0, f"{NAME} {version()}\n")
