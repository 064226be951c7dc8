"""deploy/runbook.md: what it has an operator tell PostgreSQL does what it says."""

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import trio
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from service.platform.database import open_database
from service.platform.database.migrate import migrate
from service.platform.inside.tasks import task_tree
from service.platform.jobs import JobContext, enqueue, job, open_jobs
from service.platform.telemetry import Metrics
from service.platform.testing.copies import ROOT
from service.platform.testing.fixtures import MakeSettings
from tests.platform.database.migrations import make_release, write_migration
from tests.platform.database.observer import conninfo

PAGE = (ROOT / "deploy" / "runbook.md").read_text()
[SECOND_ROLE] = re.findall(r"`(CREATE ROLE app_b .*?)`", PAGE)
[WHERE_JOBS_ARE] = re.findall(r"service tasks \| (.*─ job .*)", PAGE)


@pytest.fixture
def roles(empty_database_url: str) -> Iterator[list[str]]:
    """Yield the database's address for the role that owns it, and for the second one that the page makes."""
    url = make_url(empty_database_url)
    names = [f"{url.database}_{end}" for end in "ab"]
    with psycopg.connect(conninfo(empty_database_url), autocommit=True) as connection:
        owner, second = (sql.Identifier(name) for name in names)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(owner))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(url.database or ""), owner))
        told = re.sub(r"\bapp_b\b", names[1], SECOND_ROLE)
        connection.execute(re.sub(r"\bapp\b", names[0], told).encode())
        yield [url.set(username=name).render_as_string(hide_password=False) for name in names]
        connection.execute(sql.SQL("REASSIGN OWNED BY {}, {} TO CURRENT_USER").format(owner, second))
        connection.execute(sql.SQL("DROP OWNED BY {}, {}").format(owner, second))
        connection.execute(sql.SQL("DROP ROLE {}, {}").format(second, owner))


def test_what_the_second_role_migrates_is_the_first_one_s_when_that_comes_back(
    roles: list[str], make_settings: MakeSettings, tmp_path: Path
) -> None:
    first, second = roles
    migrate(make_settings(database_url=SecretStr(first)), migrations=make_release(tmp_path, "one"))
    following = make_release(tmp_path, "two")
    write_migration(following, "next", "two", serves_from="one", up="CREATE TABLE next_release (word text)")
    migrate(make_settings(database_url=SecretStr(second)), migrations=following)

    with psycopg.connect(conninfo(first)) as connection:
        connection.execute("INSERT INTO notes (title) VALUES ('a')")
        connection.execute("INSERT INTO next_release VALUES ('a')")


async def test_a_job_that_does_not_end_is_shown_by_its_own_line(make_settings: MakeSettings) -> None:
    go_on, may_end = trio.Event(), threading.Event()

    @job(retries=0, deadline=0.1)
    async def shielded(_context: JobContext) -> None:
        with trio.CancelScope(shield=True):
            await go_on.wait()

    @job(retries=0, deadline=0.1)
    def computes(_connection: Connection) -> None:
        may_end.wait(60)

    settings, metrics = make_settings(), Metrics()
    overdue = [f'jobs_overdue{{kind="{kind}"}} 1.0'.encode() for kind in ("shielded", "computes")]
    with trio.fail_after(60):
        async with open_database(settings) as database, open_jobs(database, (shielded, computes), settings, metrics):
            await database.run(enqueue, shielded)
            await database.run(enqueue, computes)
            while not all(line in metrics.text() for line in overdue):
                await trio.sleep(0.05)
            shown = subprocess.run(
                ["sh", "-c", WHERE_JOBS_ARE], input=task_tree().text, capture_output=True, text=True, check=True
            ).stdout
            go_on.set()
            may_end.set()

    here = re.findall(r"tests/docs/test_runbook\.py:\d+ \S*?(shielded|computes)$", shown, re.MULTILINE)
    assert sorted(here) == ["computes", "shielded"], shown
