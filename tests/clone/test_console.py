"""`make shell` and `make python`: a prompt on the development database, which is started when it does not run."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.platform.testing.copies import ROOT, copy_repository
from service.platform.testing.development import Lay
from service.platform.testing.processes import environment


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, lay_development: Lay) -> Path:
    copy = copy_repository(tmp_path_factory.mktemp("console") / "clone")
    lay_development(copy)
    return copy


def prompt(clone: Path, which: str, typed: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "deploy/console.py", *which.split()],
        cwd=clone,
        env=environment(**settings) | {"PYTHONPATH": str(clone)},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_python_has_a_connection_and_the_tables(clone: Path) -> None:
    typed = "connection.execute(text('SELECT 6 * 7')).scalar(), len(features) > 0, set(metadata.tables) <= set(dir())\n"
    done = prompt(clone, "python", typed)

    assert done.returncode == 0, done.stderr
    assert "(42, True, True)" in done.stdout


def test_psql_asks_the_same_database(clone: Path) -> None:
    done = prompt(clone, "psql", "SELECT 6 * 7 AS answer;\n")

    assert done.returncode == 0, done.stderr
    assert re.search(r"answer\s+-+\s+42", done.stdout)


def test_an_unknown_prompt_is_refused(clone: Path) -> None:
    done = prompt(clone, "ruby", "")

    assert (done.returncode, done.stderr) == (1, "say which prompt: psql or python\n")


def test_a_database_that_cannot_be_reached_is_one_sentence(clone: Path) -> None:
    done = prompt(clone, "python", "", database_url="postgresql://ada:secret@127.0.0.1:1/app")  # nobody has that port

    assert done.returncode == 1
    assert done.stderr.startswith("the database cannot be reached: ")
    assert "port 1 failed: Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("deploy/console.py python", 1, ["interrupted\n"]),
        ("deploy/generate.py", 1, ["interrupted: `git status` says what was changed until then\n"]),
        ("-m service.platform.testing.kept", 0, []),  # for `make test-database`, which ends so
    ],
)
def test_ctrl_c_while_a_command_starts_is_a_word_at_most(
    clone: Path, command: str, code: int, words: list[str]
) -> None:
    process = subprocess.Popen(
        # -X importtime tells each import as it is done
        ["env", "--default-signal=INT", sys.executable, "-X", "importtime", *command.split()],
        cwd=clone,
        env=environment() | {"PYTHONPATH": str(clone)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        while not {"sqlalchemy", "pydantic"} & {*process.stderr.readline().replace(".", " ").split()}:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = [line for line in process.stderr if not line.startswith("import time:")]

    assert (process.returncode, said) == (code, words)


def test_editors_and_hooks_run_the_repository_s_own_commands() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert (ROOT / container["postCreateCommand"].split()[1]).exists()
    assert {one["repo"] for one in hooks} == {"local"}
    assert {hook["entry"].removeprefix("make ") for one in hooks for hook in one["hooks"]} <= set(targets)
    assert shutil.which("make")
