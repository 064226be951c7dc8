"""What is wrong with the sessions that we are given, where a pooler, a role or a URL makes them others than we ask for.

They serve, and so this is told and refuses nothing: in the log at the start, and by `service check`.
"""

from collections.abc import Mapping
from typing import Final

from psycopg.pq.abc import PGconn

from service.platform.database.address import FORMS, asked_for_forms
from service.platform.database.wire import execute

# Forms in which another value is borne: BEGIN says the level itself, and a moment is the same in each zone.
_BORNE: Final = {"default_transaction_isolation", "TimeZone"}
# Limits that cut a unit of work, and which of ours is what one may take.
_CUT: Final = {
    "statement_timeout": "statement_timeout",
    "transaction_timeout": "statement_timeout",
    "idle_in_transaction_session_timeout": "idle_in_transaction_session_timeout",
}
_LOSES: Final = {"synchronous_commit": "what is acknowledged may be lost when PostgreSQL is killed"}
# Of the whole server, and so no news at each start of a service.
_SERVER_LOSES: Final = {
    "fsync": "what is acknowledged may be lost when the machine stops",
    "full_page_writes": "a page may be torn when the machine stops",
}
# One that ignores what sessions ask for, and so lets them in.
_POOLED: Final = (
    "a pooler is between: if it is in transaction mode, notifications and prepared statements are lost until "
    "SERVICE_DATABASE_POOLED is true, and SERVICE_DATABASE_DIRECT_URL leads past it"
)
_NAMES: Final = ", ".join(f"'{name}'" for name in {*FORMS, *_CUT, *_LOSES, *_SERVER_LOSES})
_SCHEMA, _PROCESS = "schema", "process"
_SELECT: Final = f"""
    SELECT name, setting FROM pg_settings WHERE name IN ({_NAMES})
    UNION ALL SELECT '{_SCHEMA}', current_schema()
    UNION ALL SELECT '{_PROCESS}', pg_backend_pid()::text ORDER BY name"""  # noqa: S608  constants


async def find_unfit(pgconn: PGconn, limits: Mapping[str, str], *, of_server: bool = False) -> list[str]:
    """Return a sentence for each setting of a session that is not as it should be. Raises psycopg.Error.

    `limits` are those that a session should have, in milliseconds. `of_server` adds what all of its sessions have.
    """
    result = await execute(pgconn, _SELECT)
    have = {_text(result.get_value(row, 0)): _text(result.get_value(row, 1)) for row in range(result.ntuples)}
    loses = _LOSES | _SERVER_LOSES if of_server else _LOSES
    lost = [f"{name} is off: {loses[name]}" for name in loses if have.get(name) == "off"]
    others = (_sentence(name, value, limits) for name, value in have.items() if name in _CUT or name in FORMS)
    past = [] if is_past_poolers(pgconn, have[_PROCESS]) else [_POOLED]
    lead = [] if have[_SCHEMA] else ["search_path leads to no schema that the role may use"]
    return [*past, *lead, *lost, *filter(None, others)]


def is_past_poolers(pgconn: PGconn, process: str) -> bool:
    """Tell whether who answers is who let us in, or does not have to be: a pooler gives us a number of its own."""
    return not asked_for_forms(pgconn.options) or process == str(pgconn.backend_pid)


def _sentence(name: str, value: str, limits: Mapping[str, str]) -> str:
    if name in _CUT:
        wanted = int(limits[_CUT[name]])
        return f"{name} is {value} ms, and {wanted} are needed" if 0 < int(value) < wanted else ""
    if name in _BORNE or value.startswith(FORMS[name]) or (name == "extra_float_digits" and int(value) >= 1):
        return ""
    if name == "client_min_messages" and value != "error":  # more than warnings, which nobody reads
        return ""
    return f"{name} is {value}, and {FORMS[name]} is needed"


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
