"""`python -m bench.apps.features DIRECTORY NUMBER`: the service with so many features, written there if need be.

Each is a module with what an ordinary one has: a table, five routes that are declared, a setting and a metric.
"""

import sys
from pathlib import Path

from service.platform.feature import Feature
from service.platform.process.end import ending
from service.platform.process.start import collect_seldom
from service.platform.verbs import Program, run_program

SOURCE = '''
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field
from pydantic.dataclasses import dataclass as checked
from quart import Blueprint
from quart_schema import validate_querystring, validate_request
from service.platform.database import metadata
from service.platform.feature import Resources
from service.platform.http import limited
from service.platform.identity import anyone
from service.platform.settings import FeatureSettings


class NAMESettings(FeatureSettings):
    most: int = Field(100, ge=1, description="What NAME takes at most.")


table = sa.Table(
    "NAME", metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
)


@checked(frozen=True, kw_only=True)
class NAMEDraft:
    title: Annotated[str, Field(min_length=1, max_length=200)]
    tags: tuple[Annotated[str, Field(max_length=20)], ...] = ()


@checked(frozen=True, kw_only=True)
class NAMEQuestion:
    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=100)] = 20


def select(connection, *, after, limit):
    query = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
    return [dict(row._mapping) for row in connection.execute(query)]


def insert(connection, *, title):
    return connection.execute(sa.insert(table).values(title=title).returning(table.c.id)).scalar_one()


def delete(connection, *, number):
    return connection.execute(sa.delete(table).where(table.c.id == number)).rowcount


@asynccontextmanager
async def open_feature(resources: Resources) -> AsyncIterator[Blueprint]:
    made = 0
    resources.metrics.counter("NAME_made_total", "What was made.", lambda: made)
    routes = Blueprint("NAME", __name__, url_prefix="/api/NAME")

    @routes.get("/")
    @anyone
    @limited()
    @validate_querystring(NAMEQuestion)
    async def list_all(query_args: NAMEQuestion) -> dict[str, object]:
        """List them."""
        found = await resources.database.read(select, after=query_args.after, limit=query_args.limit)
        return {"found": found}

    @routes.post("/")
    @anyone
    @limited()
    @validate_request(NAMEDraft)
    async def post(data: NAMEDraft) -> dict[str, int]:
        """Make one."""
        nonlocal made
        made += 1
        return {"id": await resources.database.run(insert, title=data.title)}

    @routes.get("/<int:number>")
    @anyone
    @limited()
    async def get(number: int) -> dict[str, object]:
        """Return one."""
        return {"found": await resources.database.read(select, after=number - 1, limit=1)}

    @routes.delete("/<int:number>")
    @anyone
    @limited()
    async def remove(number: int) -> dict[str, int]:
        """Delete one."""
        return {"deleted": await resources.database.run(delete, number=number)}

    @routes.get("/most")
    @anyone
    @limited()
    async def most() -> dict[str, int]:
        """Return the setting."""
        return {"most": resources.settings.of(NAMESettings).most}

    yield routes
'''


def write(directory: Path, number: int) -> Feature:
    """Return a feature, and write its module if it is not there."""
    name = f"growth{number}"
    module = directory / f"{name}.py"
    if not module.exists():
        module.write_text(SOURCE.replace("NAME", name))
    return Feature(name, open=f"{name}:open_feature", settings=f"{name}:{name}Settings")


if __name__ == "__main__":
    collect_seldom()
    sys.path.insert(0, sys.argv[1])
    with ending():
        features = [write(Path(sys.argv[1]), number) for number in range(int(sys.argv[2]))]
        run_program(Program("service.settings:Settings", features), ["serve"])
