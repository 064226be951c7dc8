"""What `service check` asks the database, once, over a connection of its own. Changes nothing.

A question that is refused is an answer, too: of the schema's state, for which a role may lack the right.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import psycopg
import trio
from psycopg.pq.abc import PGconn

from service.platform.database.address import Address, PasswordUnreadable, ceilings
from service.platform.database.redaction import flat
from service.platform.database.refusals import MigrationsWrong
from service.platform.database.schema import (
    STATE_TABLE,
    decide,
    explain,
    find_migrations,
    metadata,
    read_code_schema,
)
from service.platform.database.session import find_unfit, is_past_poolers
from service.platform.database.state import read_state
from service.platform.database.wire import ANSWER_LIMIT, ConnectFailed, connect, execute, why_no_writes
from service.platform.errors import DatabaseAway
from service.platform.settings import PlatformSettings

# What the role lacks on the features' tables that are there, a row for each table. A feature that only reads some of
# its tables needs less; to say which is the feature's, so that this is a warning.
SELECT_LACKING = """
SELECT relname, string_agg(lower(privilege), ', ' ORDER BY place)
FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS wanted (privilege, place), pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = current_schema() AND relkind IN ('r', 'p')
    AND NOT has_table_privilege(pg_class.oid, privilege)
GROUP BY relname
ORDER BY relname
"""

# Of which of them it sees only the rows that a policy lets through: none where there is no policy, without a word.
SELECT_FILTERED = """
SELECT relname, '' FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = current_schema() AND relkind IN ('r', 'p') AND row_security_active(pg_class.oid)
ORDER BY relname
"""

# Where else somebody has migrated: the catalogue shows it also to a role that may not use the schema.
SELECT_MIGRATED = f"""
SELECT string_agg(quote_ident(nspname), ', ' ORDER BY nspname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relname = '{STATE_TABLE}' AND relkind = 'r' AND nspname <> current_schema()
"""  # noqa: S608  a constant
# How many connections there are at most, and whose limit the lowest is; those of roles and databases bind no superuser.
SELECT_MOST = """
SELECT most, whose FROM (
    SELECT setting::int, 'the server has' FROM pg_settings WHERE name = 'max_connections'
    UNION ALL SELECT rolconnlimit, 'the role may have' FROM pg_roles WHERE rolname = session_user AND NOT rolsuper
    UNION ALL SELECT datconnlimit, 'the database may have' FROM pg_database, pg_roles
        WHERE datname = current_database() AND rolname = session_user AND NOT rolsuper
) AS limits (most, whose)
WHERE most >= 0 ORDER BY most LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server says of itself, of its limits and of our rights."""

    version: str
    version_number: int  # 180001 is 18.1
    no_writes: str  # why it takes none
    max_connections: int
    limited_by: str  # whose limit that is
    may_create: bool
    lacking: Mapping[str, str]  # rights that the role lacks, of each feature's table
    filtered: tuple[str, ...]  # those of which it may not see all rows
    clock_ahead: float  # seconds that the server's clock is ahead of ours
    unlimited: tuple[str, ...]  # the ceilings that the server would not enforce as this service wants them
    unfit: tuple[str, ...]  # what else is wrong with a session, a sentence each
    schema: str
    served: bool
    schema_advice: str  # what to do when it is not served


async def ask(settings: PlatformSettings) -> Facts:
    """Return the facts. Raises DatabaseAway, with the reason and no secret, when the server does not answer."""
    return await _answer(Address.pool(settings), lambda pgconn: _ask(pgconn, settings))


async def ask_directly(settings: PlatformSettings) -> bool:
    """Go the way of the listener and of migrations; return whether it is past every pooler. Raises DatabaseAway."""
    return await _answer(Address.direct(settings), _is_past_poolers)


async def _is_past_poolers(pgconn: PGconn) -> bool:
    return is_past_poolers(pgconn, await _value(pgconn, "SELECT pg_backend_pid()"))


async def _answer[T](address: Address, question: Callable[[PGconn], Awaitable[T]]) -> T:
    try:
        pgconn = await connect(address.parameters)
    except (ConnectFailed, PasswordUnreadable) as error:
        raise DatabaseAway(flat(error)) from None
    try:
        with trio.fail_after(ANSWER_LIMIT):
            return await question(pgconn)
    except trio.TooSlowError:
        raise DatabaseAway(f"lets us in, and does not answer within {ANSWER_LIMIT:g} s") from None
    except psycopg.Error as error:
        raise DatabaseAway(f"does not answer a question: {flat(error)}") from None
    finally:
        pgconn.finish()


async def _ask(pgconn: PGconn, settings: PlatformSettings) -> Facts:
    before = time.time()
    now = float(await _value(pgconn, "SELECT extract(epoch FROM clock_timestamp())"))
    ours = (before + time.time()) / 2
    wanted = ceilings(settings)
    have = {name: await _value(pgconn, f"SHOW {name}") for name in wanted}
    schema, served, advice = await _schema(pgconn)
    ((most, limited_by),) = await _rows(pgconn, SELECT_MOST)
    return Facts(
        version=await _value(pgconn, "SHOW server_version"),
        version_number=int(await _value(pgconn, "SHOW server_version_num")),
        no_writes=why_no_writes(pgconn),
        max_connections=int(most),
        limited_by=limited_by,
        may_create=await _value(pgconn, "SELECT has_schema_privilege(current_schema(), 'CREATE')") == "t",
        lacking={table: rights for table, rights in await _rows(pgconn, SELECT_LACKING) if table in metadata.tables},
        filtered=tuple(
            table for table, _ in await _rows(pgconn, SELECT_FILTERED) if table in {*metadata.tables, STATE_TABLE}
        ),
        clock_ahead=now - ours,
        unlimited=tuple(name for name, value in have.items() if value in {"", "0"}),
        unfit=tuple(await find_unfit(pgconn, wanted, of_server=True)),
        schema=schema,
        served=served,
        schema_advice=advice,
    )


async def _schema(pgconn: PGconn) -> tuple[str, bool, str]:
    """Return how the schema stands to the code, whether it is served, and what to do when it is not."""
    try:
        code = read_code_schema(find_migrations())
        state = await read_state(pgconn)
    except MigrationsWrong as error:
        return str(error), False, "`serve` and `migrate` end at once"
    except psycopg.errors.InsufficientPrivilege as error:
        return flat(error), False, f"GRANT SELECT ON {STATE_TABLE} TO the role of SERVICE_DATABASE_URL"
    if state.revision is None and not await _value(pgconn, "SELECT current_schema()"):
        advice = "GRANT USAGE ON SCHEMA public TO the role of SERVICE_DATABASE_URL, or set its search_path"
        return "the role may use no schema", False, advice
    if state.revision is None and (elsewhere := await _value(pgconn, SELECT_MIGRATED)):
        seen = await _value(pgconn, "SELECT quote_ident(current_schema())")
        return (
            f"search_path leads to {seen}, where nothing is migrated; it is in {elsewhere}",
            False,
            f"ALTER ROLE ... SET search_path = {elsewhere}, of the role of SERVICE_DATABASE_URL; `serve` would wait",
        )
    return explain(code, *state), decide(code, *state).served, "`serve` would wait"


async def _rows(pgconn: PGconn, statement: str) -> list[tuple[str, str]]:
    """Return the first two columns of all rows, as text."""
    result = await execute(pgconn, statement)
    values = ((result.get_value(row, 0), result.get_value(row, 1)) for row in range(result.ntuples))
    return [((one or b"").decode(), (two or b"").decode()) for one, two in values]


async def _value(pgconn: PGconn, statement: str) -> str:
    result = await execute(pgconn, statement)
    return (result.get_value(0, 0) or b"").decode() if result.ntuples else ""
