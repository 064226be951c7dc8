"""Nothing that was enqueued is lost, and no SQL effect comes twice: whatever happens to workers and PostgreSQL."""

from pathlib import Path

import pytest

from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.jobs.checker import check
from tests.platform.jobs.worker_program import BUGS

SHORT = ("kill", "freeze", "term", "restart", "cut", "mute")


async def test_one_story(tmp_path: Path, one_server: OwnServer) -> None:
    migrate(PlatformSettings(database_url=one_server.tcp_url), wait=10)

    assert await check(tmp_path, one_server, seed=1, faults=SHORT, jobs=80, within=30) == []  # seconds are the drill's


@pytest.mark.drill
@pytest.mark.parametrize("bug", BUGS)
async def test_what_libraries_of_jobs_do_wrong_is_found(tmp_path: Path, one_server: OwnServer, bug: str) -> None:
    migrate(PlatformSettings(database_url=one_server.tcp_url), wait=10)
    faults = ("freeze", "kill", "freeze", "kill")
    mix = ("slow", "quick", "quick")  # many that are under way when a worker is frozen
    problems = await check(tmp_path, one_server, seed=1, faults=faults, bug=bug, heal=15, mix=mix)
    print(*problems, sep="\n")

    assert problems


@pytest.mark.drill
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("seed", range(10))
async def test_stories(tmp_path: Path, one_server: OwnServer, seed: int, workers: int) -> None:
    migrate(PlatformSettings(database_url=one_server.tcp_url), wait=10)

    assert await check(tmp_path, one_server, seed=seed, workers=workers) == []
