"""Requests made up from `/openapi.json`, right ones and wrong ones: each answer is as described, and none is a 5xx."""

import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from quart import Blueprint, request
from quart_schema import validate_headers, validate_request

from service.platform.errors import PreconditionFailed, Refused, Unprocessable
from service.platform.feature import Feature, Resources
from service.platform.http import replies, takes, unlimited
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.processes import ROOT, environment, ready

HOOKS = {"SCHEMATHESIS_HOOKS": "tests.platform.http.hooks"}  # which imports those of features
CONFIG = Path(__file__).with_name("schemathesis.toml")


async def ask(directory: Path, url: str, *, examples: int, seed: int, paths: str = "") -> str:
    """Return what schemathesis says, which ends with 0 if it finds nothing; all its checks, on some paths or all."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(CONFIG)]
    options = ["--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"]
    options += ["--include-path-regex", paths] if paths else []
    done = await trio.run_process(
        [*command, "run", "--checks", "all", "--no-color", *options, f"{url}/openapi.json"],
        cwd=directory,
        env=environment() | {"PYTHONPATH": str(ROOT)} | HOOKS,
        capture_stdout=True,
        check=False,
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


async def find(directory: Path, database_url: str, *, examples: int, seed: int, paths: str = "") -> str:
    """Return what it says of the service as it is."""
    async with ready(directory, "serve", database_url=database_url, rate_per_address=0) as service:
        return await ask(directory, service.public, examples=examples, seed=seed, paths=paths)


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


class Unconditional(Refused):
    """If-Match is missing."""

    status = 428


@dataclass(frozen=True)
class Change:
    name: str = ""


@dataclass(frozen=True)
class Version:
    if_match: str | None = None


@asynccontextmanager
async def open_files(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("files", __name__)

    @routes.put("/files/scan")
    @anyone
    @unlimited("a test's")
    @takes("application/pdf")
    async def scan() -> dict[str, int]:
        return {"size": sum([len(part) async for part in request.body])}

    @routes.post("/files/rows")
    @anyone
    @unlimited("a test's")
    @takes("text/csv")
    async def rows() -> dict[str, int]:
        return {"size": sum([len(part) async for part in request.body])}

    @routes.patch("/files/name")
    @anyone
    @unlimited("a test's")
    @takes("application/merge-patch+json")
    @validate_headers(Version)
    @validate_request(Change)
    @replies(Unconditional)
    @replies(PreconditionFailed)
    @replies(Unprocessable)
    async def name(data: Change, headers: Version) -> dict[str, str]:
        if headers.if_match is None:
            raise Unconditional("If-Match: is missing")
        if headers.if_match != '"1"':
            raise PreconditionFailed(f"If-Match: must be what was read, not {headers.if_match!r}")
        if not data.name:
            raise Unprocessable("name: there is one already")
        return {"name": data.name}

    yield routes


async def test_what_a_feature_may_take_and_refuse_is_no_finding(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", rate_per_address=0)
    with trio.fail_after(300):
        async with booted(settings, [Feature("files", open=open_files)]) as urls:
            said = await ask(tmp_path, urls.public, examples=10, seed=1, paths="^/files")

    assert "Selected: 3" in said
