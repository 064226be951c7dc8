"""Style and types, as tests: `make test` is the whole truth."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wsproto.frame_protocol import CloseReason

from service.platform.testing.copies import one_mypy

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Those in which its rules can find anything at all: it takes its time over each.
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for name in ("service", "migrations")
    for path in (ROOT / name).rglob("*.py")
    if re.search("async |trio", path.read_text())
)


HANGS = 1200  # seconds; mypy alone took more than 300 beside ten others on two processors

COMMANDS: dict[str, tuple[str, ...]] = {
    "ruff check": ("ruff", "check", "--no-cache"),
    "ruff format": ("ruff", "format", "--check", "--no-cache"),
    "mypy": ("mypy", "--no-error-summary"),
    # Quart sends a plain function to a thread, so a handler or a feature's scope is async even when nothing blocks.
    "flake8-async": (
        *("python", "-m", "tests.platform.async_rules"),
        "--disable=ASYNC124,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913",
        *SOURCES,
    ),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[subprocess.Popen[bytes], Path]]]:
    """Start all of them at once: two take a quarter of a minute each, on one processor."""
    said = tmp_path_factory.mktemp("style")
    started = {}
    with one_mypy():
        for name, (program, *arguments) in COMMANDS.items():
            log = said / name
            with log.open("wb") as output:
                process = subprocess.Popen([BIN / program, *arguments], cwd=ROOT, stdout=output, stderr=output)
            started[name] = process, log
        yield started
        for process, _ in started.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", COMMANDS)
def test_is_clean(running: dict[str, tuple[subprocess.Popen[bytes], Path]], name: str) -> None:
    process, log = running[name]

    assert process.wait(HANGS) == 0, log.read_text()


@pytest.mark.drill  # a quarter of a minute of one processor, as nothing of the other run is of use to it
def test_what_only_linux_has_is_used_on_linux_alone(tmp_path: Path) -> None:
    options = ("--no-error-summary", "--platform=darwin", f"--cache-dir={tmp_path}")
    command = (str(BIN / "mypy"), *options, "service", "migrations")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_a_rule_of_async_code_finds_what_it_is_for(tmp_path: Path) -> None:
    """Rules of both kinds: those that look at Python's own tree, and those that look at one with comments."""
    (tmp_path / "wrong.py").write_text(
        "import time, trio\nasync def f():\n    time.sleep(1)\n    with trio.fail_after(1):\n        pass\n"
        "    with trio.fail_after(1):  # noqa: ASYNC100\n        pass\n"
    )
    program, *arguments = COMMANDS["flake8-async"][:4]
    command = [str(BIN / program), *arguments, str(tmp_path / "wrong.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1, done.stderr
    assert re.findall(r"wrong.py:(\d+):\d+: (ASYNC\d+)", done.stdout) == [("3", "ASYNC251"), ("4", "ASYNC100")]


# Numbers that are taken for something else without their names. 1000 is left out: most of them are milliseconds.
CLOSE_CODES = set(CloseReason) - {CloseReason.NORMAL_CLOSURE}


def test_close_codes_of_websockets_have_names() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "service" / "platform").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in CLOSE_CODES
    ]

    assert bare == [], "use service.platform.server.CloseReason"
