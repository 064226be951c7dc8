"""What `service check` asks the database, once, over a connection of its own. Changes nothing."""

import time
from dataclasses import dataclass

import psycopg
from psycopg.pq.abc import PGconn

from service.platform.database.address import Address, PasswordUnreadable, ceilings
from service.platform.database.schema import SELECT_STATE, decide, explain, find_migrations, read_code_schema
from service.platform.database.wire import ConnectFailed, connect, execute
from service.platform.errors import DatabaseAway
from service.platform.settings import PlatformSettings


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server says of itself, of its limits and of our rights."""

    version: str
    version_number: int  # 180001 is 18.1
    max_connections: int
    may_create: bool
    clock_ahead: float  # seconds that the server's clock is ahead of ours
    unlimited: tuple[str, ...]  # the ceilings that the server would not enforce as this service wants them
    schema: str
    served: bool


async def ask(settings: PlatformSettings) -> Facts:
    """Return the facts. Raises DatabaseAway, with the reason and no secret, when the server does not let us in."""
    try:
        pgconn = await connect(Address.pool(settings).parameters)
    except (ConnectFailed, PasswordUnreadable) as error:
        raise DatabaseAway(" ".join(str(error).split())) from None
    try:
        return await _ask(pgconn, settings)
    finally:
        pgconn.finish()


async def _ask(pgconn: PGconn, settings: PlatformSettings) -> Facts:
    before = time.time()
    now = float(await _value(pgconn, "SELECT extract(epoch FROM clock_timestamp())"))
    ours = (before + time.time()) / 2
    wanted = ceilings(settings)
    have = {name: await _value(pgconn, f"SHOW {name}") for name in wanted}
    schema, served = await _schema(pgconn)
    return Facts(
        version=await _value(pgconn, "SHOW server_version"),
        version_number=int(await _value(pgconn, "SHOW server_version_num")),
        max_connections=int(await _value(pgconn, "SHOW max_connections")),
        may_create=await _value(pgconn, "SELECT has_schema_privilege(current_schema(), 'CREATE')") == "t",
        clock_ahead=now - ours,
        unlimited=tuple(name for name, value in have.items() if value in {"", "0"}),
        schema=schema,
        served=served,
    )


async def _schema(pgconn: PGconn) -> tuple[str, bool]:
    code = read_code_schema(find_migrations())
    try:
        result = await execute(pgconn, SELECT_STATE)
    except psycopg.errors.UndefinedTable:
        result = None
    row = [result.get_value(0, column) for column in (0, 1)] if result and result.ntuples else [None, None]
    revision, serves_from = (value.decode() if value else None for value in row)
    return explain(code, revision, serves_from), decide(code, revision, serves_from).served


async def _value(pgconn: PGconn, statement: str) -> str:
    result = await execute(pgconn, statement)
    return (result.get_value(0, 0) or b"").decode() if result.ntuples else ""
