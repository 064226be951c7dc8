"""`service jobs` with words that no job is called by; tests/platform/jobs has it with a service."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from service.platform.testing.own_server import free_port
from service.platform.testing.processes import run_to_end


@pytest.mark.parametrize("verb", ["list", "retry"])
def test_a_kind_that_is_no_text_is_asked_for_like_any(tmp_path: Path, verb: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run_to_end(tmp_path, "jobs", "--url", url, verb, "--kind", "\udcff")

    assert (done.returncode, done.stderr) == (1, f"{url} does not answer: Connection refused\n")


class HangsUp(BaseHTTPRequestHandler):
    """Takes what is asked, and says nothing to it, as a service that is killed then."""

    def do_GET(self) -> None:
        self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()


@pytest.mark.parametrize(("verb", "unknown"), [("list", False), ("retry", True)])
def test_a_change_whose_answer_is_lost_is_said_to_be_unknown(tmp_path: Path, verb: str, unknown: bool) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), HangsUp) as server:
        Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = run_to_end(tmp_path, "jobs", "--url", url, verb, "--kind", "charge")
        server.shutdown()

    assert done.returncode == 1
    assert done.stderr.startswith(f"{url} does not speak HTTP, or hung up: ")
    assert done.stderr.endswith("; whether it did what was asked is not known\n") == unknown


class Listener(BaseHTTPRequestHandler):
    """Answers as a management listener does, of a job whose error quotes what somebody sent."""

    def do_GET(self) -> None:
        job = {"id": 1, "kind": "charge", "error": "one\x1b[2J\x1b]0;two\x07\r\x9bthree\n\tfour"}
        answers = {"/info": "[" * 100_000, "/jobs/1": json.dumps(job)}
        body = answers.get(self.path, json.dumps({"jobs": [job]})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def listener() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("verb", [("list",), ("show", "1")])
def test_an_error_s_words_cannot_command_a_terminal(tmp_path: Path, listener: str, verb: tuple[str, ...]) -> None:
    done = run_to_end(tmp_path, "jobs", "--url", listener, *verb)

    assert r"one\x1b[2J\x1b]0;two\x07\x0d\x9bthree" in done.stdout
    assert "\tfour" in done.stdout


def test_an_answer_that_is_too_deep_is_none_of_ours(tmp_path: Path, listener: str) -> None:
    done = run_to_end(tmp_path, "info", listener)

    told = f"{listener}/info answers something else: is that the management listener?\n"
    assert (done.returncode, done.stderr) == (1, told)
