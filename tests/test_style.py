"""Style and types, as tests: `make test` is the whole truth."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SOURCES = sorted(
    str(path.relative_to(ROOT)) for name in ("service", "migrations") for path in (ROOT / name).rglob("*.py")
)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache"),
        ("ruff", "format", "--check", "--no-cache"),
        # Quart sends a plain function to a thread, so a handler or a feature's scope is async even when nothing blocks.
        ("flake8-async", "--disable=ASYNC124,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913", *SOURCES),
        ("mypy", "--no-error-summary"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_is_clean(command: tuple[str, ...]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
