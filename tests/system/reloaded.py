"""A clone with one feature more, a probe, and `service dev` on it: for tests of what a save does."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from service.platform.testing.copies import copy_repository
from service.platform.testing.development import Lay
from service.platform.testing.processes import PATIENCE, Process, ready

FEATURES = """
from service.probe import PROBE

FEATURES = (*FEATURES, PROBE)
"""
PROBE = """
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from quart import Blueprint, websocket
from sqlalchemy import Connection

from service.platform.feature import Feature, Resources
from service.platform.http import unlimited
from service.platform.identity import anyone

ANSWER = "first"


def stop_here(connection: Connection) -> str:
    seen = "nothing"
    breakpoint()
    return seen


@asynccontextmanager
async def open_probe(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("probe", __name__)

    @routes.get("/answer")
    @anyone
    @unlimited("a probe of tests")
    async def answer() -> str:
        return ANSWER

    @routes.get("/stop")
    @anyone
    @unlimited("a probe of tests")
    async def stop() -> str:
        seen = "nothing"
        breakpoint()
        return seen

    @routes.get("/stop-in-a-unit")
    @anyone
    @unlimited("a probe of tests")
    async def stop_in_a_unit() -> str:
        return await resources.database.run(stop_here)

    @routes.websocket("/wait")
    @anyone
    @unlimited("a probe of tests")
    async def wait() -> None:
        await websocket.accept()
        await websocket.send(ANSWER)
        await trio.sleep_forever()

    yield routes


PROBE = Feature("probe", open=open_probe)
"""


class Clone:
    """A copy of the repository in which files are saved, with a development database that is there already."""

    def __init__(self, path: Path, lay: Lay) -> None:
        self.path = copy_repository(path)
        lay(self.path)
        with (self.path / "service" / "features.py").open("a") as features:
            features.write(FEATURES)
        self.save(PROBE)

    def save(self, probe: str) -> None:
        """Save the feature's file in place of itself, as editors do it."""
        file = self.path / "service" / "probe.py"
        unfinished = file.with_name("probe.py.tmp")
        unfinished.write_text(probe)
        unfinished.rename(file)

    def answer(self, text: str) -> None:
        """Save the feature with another answer."""
        self.save(PROBE.replace('"first"', f'"{text}"'))


@asynccontextmanager
async def developing(clone: Clone, *arguments: str, **settings: Any) -> AsyncIterator[Process]:
    async with ready(clone.path, "dev", *arguments, **settings) as service:
        await wait_said(service, "is ready on")
        yield service


async def wait_said(service: Process, words: str, times: int = 1) -> str:
    """Wait until the console has said it so many times; return all of it, without colours."""
    with trio.fail_after(PATIENCE):
        while (said := service.log.read_text()).count(words) < times:
            assert service.process.poll() is None, said
            await trio.sleep(0.02)
    return re.sub(r"\x1b\[[0-9;]*m", "", said)
