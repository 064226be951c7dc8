"""Requests made up from `/openapi.json`, right ones and wrong ones: each answer is as described, and none is a 5xx."""

import random
import sys
from pathlib import Path

import pytest
import trio

from service.platform.testing.processes import ROOT, environment, ready

HOOKS = {"SCHEMATHESIS_HOOKS": "tests.platform.http.hooks"}  # which imports those of features


async def find(directory: Path, database_url: str, *, examples: int, seed: int, paths: str = "") -> str:
    """Return what schemathesis says, which ends with 0 if it finds nothing; all its checks, on some paths or all."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", "--checks", "all", "--no-color"]
    options = ["--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"]
    options += ["--include-path-regex", paths] if paths else []
    async with ready(directory, "serve", database_url=database_url, rate_per_address=0) as service:
        done = await trio.run_process(
            [*command, *options, f"{service.public}/openapi.json"],
            cwd=directory,
            env=environment() | {"PYTHONPATH": str(ROOT)} | HOOKS,
            capture_stdout=True,
            check=False,
        )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


async def test_made_up_requests_find_nothing(tmp_path: Path, database_url: str) -> None:
    with trio.fail_after(300):
        said = await find(tmp_path, database_url, examples=10, seed=1)

    assert "Selected: 0" not in said


@pytest.mark.drill
async def test_many_made_up_requests_find_nothing(tmp_path: Path, database_url: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with trio.fail_after(600):
        await find(tmp_path, database_url, examples=400, seed=seed)
