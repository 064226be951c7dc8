"""The commands of runbook and notes: they name what a release has, and do what is said where that needs no cluster.

Those of a cluster's own are run with planted/kubectl in kubectl's place, over a real service's log and listeners.
"""

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from service.platform.testing.fixtures import HEAD
from service.platform.testing.own_server import free_port
from service.platform.testing.processes import Process, run_to_end, started
from tests.helm.charts import BIN, CHART, ROOT, Release, render

PLANTED = Path(__file__).parent / "planted"
RUNBOOKS = sorted([ROOT / "deploy" / "runbook.md", *(ROOT / "service").glob("*/runbook.md")])
OUTSIDE = {"database": {"existingSecret": "db"}}


def blocks(text: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """Yield each command of kubectl and helm as words: those in blocks and, of prose, those in backticks."""
    prose = re.sub(r"^```sh\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]
    for line in lines + re.findall(r"`((?:kubectl|helm) [^`]+)`", prose):
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set(";|&<>()"):
                if command[:1] in (["kubectl"], ["helm"]):
                    yield command
                command = []
            else:
                command.append(word)


COMMANDS = [pytest.param(words, id=shlex.join(words)) for path in RUNBOOKS for words in commands(path.read_text())]
NOTES = [
    pytest.param(words, id=shlex.join(words))
    for line in render(CHART, OUTSIDE).notes.splitlines()
    for words in commands("```sh\nkubectl " + line.partition("kubectl ")[2] + "\n```")
    if len(words) > 1
]


@pytest.fixture(scope="module")
def release() -> Release:
    return render(CHART, OUTSIDE)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_names_what_a_release_has(words: list[str], release: Release) -> None:
    names = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in release.objects}
    labelled = [one["metadata"]["labels"] for one in release.objects] + [pod.labels for pod in release.pods]
    for word in words:
        if match := re.fullmatch(r"(deploy|deployment|service|job)/(.+)", word):
            kind = match[1].replace("deployment", "deploy").replace("deploy", "deployment")
            assert f"{kind}/{match[2]}" in names
    for selector in [words[place + 1] for place, word in enumerate(words) if word == "-l"]:
        wanted = dict(pair.split("=") for pair in selector.split(","))
        assert any(wanted.items() <= labels.items() for labels in labelled)


@pytest.mark.parametrize(
    "path", [ROOT / "deploy" / "runbook.md", ROOT / "docs" / "backup.md"], ids=lambda path: path.stem
)
def test_all_that_writes_is_stopped_before_a_restore(path: Path) -> None:
    release = render(CHART, OUTSIDE | {"workers": {"enabled": True}})
    [words] = [words for words in commands(path.read_text()) if words[:2] == ["kubectl", "scale"]]

    selector = dict(pair.split("=") for pair in words[words.index("-l") + 1].split(",")) if "-l" in words else {}
    stopped = [
        one for one in release.of("Deployment") if selector and selector.items() <= one["metadata"]["labels"].items()
    ]

    assert len(stopped) == len(release.of("Deployment")) == 2


@pytest.mark.parametrize("words", COMMANDS)
def test_logs_are_read_of_all_pods_and_whole(words: list[str]) -> None:
    if words[:2] != ["kubectl", "logs"] or len(words) == 3:
        return
    assert not any(word.startswith(("deploy", "job/")) for word in words), "shows one pod of many"
    if "-l" in words:
        assert "--prefix" in words
        assert any(word.startswith("--tail=") for word in words), "a selector shows ten lines"
        assert "--previous" not in words, "ends at the first pod that was not restarted"


@pytest.mark.parametrize(
    "path", [*RUNBOOKS, CHART / "README.md", ROOT / "deploy" / "trial.sh"], ids=lambda path: path.name
)
def test_no_values_are_taken_over_in_silence(path: Path) -> None:
    """Else a failed upgrade's successor deploys the version before it, and a newer chart lacks its new values."""
    text = path.read_text()

    assert not re.search(r"helm upgrade[^\n]* --reuse-values", text)


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{PLANTED}:{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", script],
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )


LOOKS = [
    line
    for path in RUNBOOKS
    for block in blocks(path.read_text())
    for line in block.splitlines()
    if line.startswith("kubectl logs") and "| grep" in line
]
FIELDS = [line for line in LOOKS if "grep -o" in line or '"reason"' in line]


@pytest.mark.parametrize("line", [line for line in LOOKS if line not in FIELDS])
def test_a_look_into_the_log_finds_each_event_that_it_names(line: str, tmp_path: Path) -> None:
    """Whether the service writes these events is seen elsewhere; here, whether the command lets them through."""
    recorded = tmp_path / "log"
    [grep] = [part for part in line.split(" | ") if part.startswith("grep ")]
    wanted = [word.removeprefix('"event": ').strip('"') for word in shlex.split(grep)[1:] if word != "-e"]
    events = ["starting", *wanted, "request"]
    recorded.write_text("".join(json.dumps({"level": "info", "event": event}) + "\n" for event in events))

    found = run(line, RECORDED=str(recorded)).stdout

    assert wanted
    assert [json.loads(one[one.index("{") :])["event"] for one in found.splitlines()] == wanted


async def test_a_look_at_refusals_finds_them(tmp_path: Path, database_url: str) -> None:
    settings: dict[str, Any] = {"database_url": database_url, "max_websockets": 0, "rate_per_address": 0.000_1}
    upgrade = (
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    post = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    with started(tmp_path, "serve", **settings) as pod:
        await pod.wait_ready()
        address = urlsplit(pod.public)
        for sent in (b"no request\r\n\r\n", upgrade, post, post):
            async with await trio.open_tcp_stream(str(address.hostname), address.port or 0) as client:
                await client.send_all(sent)
                assert await client.receive_some()
        pod.send(signal.SIGTERM)
        assert await pod.wait_end() == 0
        dropped = {"reason": "gone", "client": "127.0.0.1", "event": "connection dropped"}  # as connection.py has it
        unavailable = {"event": "request", "status": 503, "client": "127.0.0.1", "reason": "unavailable"}  # a feature's
        with pod.log.open("a") as log:
            log.writelines(json.dumps(line) + "\n" for line in (dropped, unavailable))
        found = {line: run(line, RECORDED=str(pod.log)).stdout for line in FIELDS}

    assert len(FIELDS) > 4
    assert [line for line, lines in found.items() if not lines] == []
    [kinds] = [lines for line, lines in found.items() if '"event": "request"' in line]
    assert {" ".join(line.split()) for line in kinds.splitlines()} >= {'1 "reason": "full house"', '1 "reason": "rate"'}


async def test_the_runbook_finds_what_a_pod_wrote_that_waited_and_was_told_to_go(
    tmp_path: Path, empty_database_url: str
) -> None:
    text = (ROOT / "deploy" / "runbook.md").read_text()
    settings: dict[str, Any] = {"database_url": empty_database_url, "drain_delay": 0.1, "drain_spread": 0}
    with started(tmp_path, "serve", **settings) as pod:
        await pod.wait_event("schema seen")
        migrated = await trio.to_thread.run_sync(
            lambda: run_to_end(tmp_path, "migrate", database_url=empty_database_url)
        )
        await pod.wait_ready()
        pod.send(signal.SIGTERM)
        assert await pod.wait_end() == 0
        waited = log_lines(text, "## Pods run and do not become ready", 1, pod)
        left = log_lines(text, "## A pod takes long to go", 0, pod)

    assert "schema seen" in waited
    assert [word for word in ("draining", "leaving", "stopped") if f'"{word}"' not in left] == []
    assert ("migrated from nothing" if HEAD else "nothing to do") in migrated.stdout + migrated.stderr


def log_lines(text: str, section: str, number: int, pod: Process) -> str:
    block = blocks(text.partition(section)[2])[0]
    line = [one for one in block.splitlines() if one.startswith("kubectl logs")][number]
    done = run(line, RECORDED=str(pod.log))
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_notes_work_as_one_block(tmp_path: Path, database_url: str) -> None:
    """Pasted whole: the forwards are not there yet when curl begins."""
    public, management = free_port(), free_port()
    notes = render(CHART, OUTSIDE).notes
    block = "".join(line + "\n" for line in notes.splitlines() if line.startswith(("  kubectl", "  curl")))
    block = block.replace("8000:", f"{public}:").replace(":8000/", f":{public}/")
    block = block.replace("9000:9000", f"{management}:9000").replace(":9000/", f":{management}/")
    with started(tmp_path, "serve", database_url=database_url) as pod:
        await pod.wait_ready()
        addresses = {"PUBLIC": pod.public.partition("//")[2], "MANAGEMENT": pod.management.partition("//")[2]}

        done = await trio.to_thread.run_sync(lambda: run("trap 'kill 0' EXIT\n" + block, **addresses))

    assert done.stdout.count('"status"') >= 3, done.stdout + done.stderr


async def test_the_notes_send_nobody_where_a_host_is_refused(tmp_path: Path, database_url: str) -> None:
    hosts = "demo.example.org,www.example.org"
    notes = render(CHART, OUTSIDE | {"config": {"SERVICE_ALLOWED_HOSTS": hosts}}).notes
    [asked] = re.findall(r"`(curl [^`]+)`", notes)
    with started(tmp_path, "serve", database_url=database_url, allowed_hosts=hosts) as pod:
        await pod.wait_ready()

        done = await trio.to_thread.run_sync(lambda: run(asked.replace("http://127.0.0.1:8000", pod.public)))

    assert json.loads(done.stdout)["openapi"]
    assert "open http://127.0.0.1:8000/" not in notes  # where the answer is 421


@pytest.mark.parametrize("words", NOTES)
def test_the_notes_name_what_a_release_has(words: list[str], release: Release) -> None:
    test_a_command_names_what_a_release_has(words, release)
    test_logs_are_read_of_all_pods_and_whole(words)
