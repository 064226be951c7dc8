"""`deploy/setup.sh`, which every target of the Makefile begins with."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_another_target_has_installed_stays(tmp_path: Path) -> None:
    """`make run` beside `make test` would otherwise take pytest away from it."""
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho "$@"\n')
    uv.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "deploy/setup.sh", "--group", "embedded"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert {"sync", "--locked", "--inexact", "embedded"} <= set(done.stdout.split())
