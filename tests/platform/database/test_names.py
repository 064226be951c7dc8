"""Hosts' names: by a real name server that is slow, silent or does not know, in a namespace of its own."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.platform.testing.own_server import OwnServer

ROOT = Path(__file__).parents[3]
RESOLV = "nameserver 127.0.0.1\nsearch invalid\noptions timeout:{timeout} attempts:1\n"
SILENT = 'could not translate host name "silent.test" to address: '


def connect_beside_a_name_server(
    directory: Path, host: str, *, port: int = 1, times: int = 1, within: float = 20, timeout: int = 1
) -> dict[str, Any]:
    """Return what was said of each connection, what the name server was asked, and how many of Trio's threads hang."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (util-linux)")
    (directory / "resolv.conf").write_text(RESOLV.format(timeout=timeout))
    (directory / "nsswitch.conf").write_text("hosts: files dns\n")
    wanted = {"host": host, "port": ",".join([str(port)] * len(host.split(","))), "user": "postgres"}
    arguments = json.dumps({**wanted, "dbname": "postgres", "times": times, "within": within})
    program = shlex.join([sys.executable, "-m", "tests.platform.database.name_server", arguments])
    mounts = [f"mount --bind {directory / name} /etc/{name}" for name in ("resolv.conf", "nsswitch.conf")]
    script = f"{' && '.join(mounts)} || exit 77\nexec {program}"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--mount", "--net", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"needs a network and mounts of its own: {done.stderr}")
    assert not done.returncode, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("known.test", 'connection to server at "127.0.0.1", port 1 failed'),
        ("unknown.test", 'could not translate host name "unknown.test" to address: Name or service not known'),
        ("silent.test", SILENT + "Temporary failure in name resolution"),
    ],
)
def test_a_name_is_looked_up_once_and_never_by_libpq(tmp_path: Path, host: str, words: str) -> None:
    """Which would ask again, and hold the event loop until it has an answer, or has waited for none."""
    found = connect_beside_a_name_server(tmp_path, host)

    assert found["said"][0].startswith(words)
    assert len(found["asked"]) == len(set(found["asked"])) >= 1, found["asked"]


def test_a_name_of_which_nothing_is_heard_is_named(tmp_path: Path) -> None:
    found = connect_beside_a_name_server(tmp_path, "silent.test", within=0.5, timeout=30)

    assert found["said"] == [SILENT + "no answer from the name server"]


def test_a_host_whose_name_server_is_silent_does_not_keep_from_the_others(
    one_server: OwnServer, tmp_path: Path
) -> None:
    host = f"silent.test,{one_server.data}"
    found = connect_beside_a_name_server(tmp_path, host, port=one_server.port, within=4, timeout=30)

    assert found["said"] == ["connected"]


def test_a_silent_name_server_takes_a_few_threads_and_none_of_what_others_wait_for(tmp_path: Path) -> None:
    """A call to another service waits for a thread of Trio's, of which there are 40."""
    found = connect_beside_a_name_server(tmp_path, "silent.test", times=50, within=0.05, timeout=30)

    assert found["threads"] == 0
    assert 1 <= len(found["asked"]) <= 2 * 8  # A and AAAA
