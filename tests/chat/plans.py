"""How PostgreSQL reads what the chat asks it for: the plans of the very statements that its functions run."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import trio
from psycopg import sql

from service.chat import pages
from service.platform.database import Statement

TABLES = {"chat_message", "chat_room"}  # the only other one has one row
BY_INDEX = {"Index Scan", "Index Only Scan"}
MODES = ("force_custom_plan", "force_generic_plan")  # PostgreSQL takes either for a statement that is prepared
FILL = """
    INSERT INTO chat_room (name, seq) SELECT %(prefix)s || n, 0 FROM generate_series(1, %(rooms)s) n
    ON CONFLICT DO NOTHING;
    INSERT INTO chat_message (room, seq, id, author, text)
    SELECT %(prefix)s || room, seq, 'm' || seq, 'somebody', '^ ' || repeat('as long as usual ', 5)
    FROM generate_series(%(first)s, %(last)s) seq, generate_series(1, %(rooms)s) room;
    UPDATE chat_room SET seq = %(last)s WHERE name ^@ %(prefix)s"""


class Asker:
    """Stands where the chat's functions expect the database, and keeps what they ask."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    async def fetch(self, statement: Statement, *values: Any) -> list[tuple[Any, ...]]:
        await trio.lowlevel.checkpoint()
        self.asked.append((statement.text, values))
        return psycopg.RawCursor(self.connection).execute(statement.text.encode(), values).fetchall()


type Question = Callable[[Any], Awaitable[object]]


def questions(room: str, last: int) -> dict[str, Question]:
    """Return what is asked for a page of history, a join and a resume, in a room of so many messages."""
    return {
        "the latest page": partial(pages.read_before, room=room, limit=50),
        "an older page": partial(pages.read_before, room=room, before=last // 2, limit=50),
        "a page after": partial(pages.read_after, room=room, after=last // 2, limit=50),
        "a join": partial(pages.read_after, room=room, after=last, limit=100),
        "a resume": partial(pages.read_after, room=room, after=max(0, last - 50), limit=100),
        "a look at what has gone on": partial(pages.read_ahead, heads={room: last - 1}),
    }


def fill(url: str, *, prefix: str, rooms: int, first: int, last: int) -> None:
    """Put messages `first` to `last` into each of the rooms, and have PostgreSQL count what there is."""
    given = {"prefix": prefix, "rooms": rooms, "first": first, "last": last}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"SET client_min_messages = error")
        with psycopg.ClientCursor(connection) as cursor:  # several statements at once take no parameters of the server
            cursor.execute(FILL.encode(), given)
        connection.execute(b"VACUUM ANALYZE chat_message, chat_room")


def scans(connection: psycopg.Connection[Any], ask: Question) -> Iterator[tuple[str, str, int]]:
    """Yield table and kind of each scan of TABLES, in either mode, that a question's statement makes, and how often."""
    asker = Asker(connection)
    trio.run(ask, asker)
    for text, values in asker.asked:
        for mode in MODES:
            yield from _scans(_plan(connection, mode, text, values))


def _plan(connection: psycopg.Connection[Any], mode: str, text: str, values: tuple[Any, ...]) -> dict[str, Any]:
    connection.execute(f"SET plan_cache_mode = {mode}".encode())
    connection.execute(f"PREPARE asked AS {text}".encode())
    given = sql.SQL(", ").join(map(sql.Literal, values))
    execute = sql.SQL("EXECUTE asked ({})" if values else "EXECUTE asked").format(given)
    found = connection.execute(sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {}").format(execute)).fetchone()
    connection.execute(b"DEALLOCATE asked")
    assert found is not None
    plan: dict[str, Any] = found[0][0]["Plan"]
    return plan


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    if node.get("Relation Name") in TABLES:
        yield node["Relation Name"], node["Node Type"], node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _scans(child)
