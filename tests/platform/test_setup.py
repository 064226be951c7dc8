"""`deploy/setup.sh`, which every target of the Makefile begins with; and what else the Makefile says twice."""

import os
import subprocess
from pathlib import Path

from service.platform.testing.copies import ROOT, SIDE_BY_SIDE


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


def test_the_suite_in_a_copy_runs_as_make_test_does() -> None:
    assert f"SIDE_BY_SIDE := {' '.join(SIDE_BY_SIDE)}\n" in (ROOT / "Makefile").read_text()
