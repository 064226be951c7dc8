"""Work of every few minutes that the database refuses is told for as long as it does, and done soon after."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
import trio
from sqlalchemy import Connection, text
from trio.testing import MockClock

from service.platform.database import Database, open_database
from service.platform.database.background import PROBATION
from service.platform.http.idempotency import SWEEP, open_idempotency
from service.platform.identity.opening import open_identity
from service.platform.jobs import open_jobs
from service.platform.settings import PlatformSettings
from service.platform.telemetry import Metrics
from service.platform.testing.fixtures import MakeSettings

NOBODY = "http://127.0.0.1:9"
SOON = 5.0  # seconds that are promised from the end of the cause


@dataclass(frozen=True)
class Sweep:
    task: str
    table: str
    open: Callable[[Database, PlatformSettings], AbstractAsyncContextManager[object]]


SWEEPS = (
    Sweep("upkeep.Upkeep.sweep", "job", lambda database, settings: open_jobs(database, (), settings, Metrics())),
    Sweep("idempotency.sweep", "idempotency_answer", lambda database, _: open_idempotency(database)),
    Sweep("opening.sweep", "identity_ticket", lambda database, settings: open_identity(settings, database, Metrics())),
)


def rename(connection: Connection, name: str, other: str) -> None:
    connection.execute(text(f"ALTER TABLE {name} RENAME TO {other}"))


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep.task)
async def test_a_sweep_that_fails_is_failing_until_it_is_done(
    sweep: Sweep, make_settings: MakeSettings, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    settings = make_settings(auth_issuer=NOBODY, auth_audience="orders")
    async with open_database(settings) as database, sweep.open(database, settings):
        await database.run(rename, sweep.table, "elsewhere")
        mock_clock.jump(SWEEP)  # the longest of them
        with trio.fail_after(30):
            while sweep.task not in database.failing_tasks:
                await trio.sleep(0.05)
        seen = []
        with trio.move_on_after(2 * PROBATION):
            while True:
                seen.append(sweep.task in database.failing_tasks)
                await trio.sleep(0.05)
        await database.run(rename, "elsewhere", sweep.table)
        with trio.fail_after(SOON):
            while sweep.task in database.failing_tasks:
                await trio.sleep(0.05)

    assert all(seen), "and not well again while it waits for its next turn"
