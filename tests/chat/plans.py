"""How PostgreSQL reads what the chat asks it for: the plans of the very statements that its functions run."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, event

from service.chat import pages

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

type Asked = tuple[str, dict[str, Any]]


def questions(room: str, last: int) -> dict[str, Callable[[Connection], object]]:
    """Return what is asked for a page of history, a join and a resume, in a room of so many messages."""
    return {
        "the latest page": lambda connection: pages.select_before(connection, room=room, limit=50),
        "an older page": lambda connection: pages.select_before(connection, room=room, before=last // 2, limit=50),
        "a page after": lambda connection: pages.select_after(connection, {room: last // 2}, limit=50),
        "a join": lambda connection: pages.select_after(connection, {room: last}, limit=100),
        "a resume": lambda connection: pages.select_after(connection, {room: max(0, last - 50)}, limit=100),
        "a look at what has gone on": lambda connection: pages.select_ahead(connection, {room: last - 1}),
    }


def fill(url: str, *, prefix: str, rooms: int, first: int, last: int) -> None:
    """Put messages `first` to `last` into each of the rooms, and have PostgreSQL count what there is."""
    given = {"prefix": prefix, "rooms": rooms, "first": first, "last": last}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"SET client_min_messages = error")
        with psycopg.ClientCursor(connection) as cursor:  # several statements at once take no parameters of the server
            cursor.execute(FILL.encode(), given)
        connection.execute(b"VACUUM ANALYZE chat_message, chat_room")


def scans(engine: Engine, ask: Callable[[Connection], object]) -> Iterator[tuple[str, str, int]]:
    """Yield table and kind of each scan of TABLES, in either mode, that a question's statement makes, and how often."""
    asked: list[Asked] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        asked.append((statement, dict(parameters)))

    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", note)
        try:
            ask(connection)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        for statement, parameters in asked:
            for mode in MODES:
                yield from _scans(_plan(driver, mode, statement, parameters))


def _plan(driver: psycopg.Connection[Any], mode: str, statement: str, parameters: dict[str, Any]) -> dict[str, Any]:
    names = list(parameters)
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
    driver.execute(f"SET plan_cache_mode = {mode}".encode())
    driver.execute(f"PREPARE asked AS {numbered}".encode())
    values = sql.SQL(", ").join(sql.Literal(parameters[name]) for name in names)
    found = driver.execute(
        sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE asked ({})").format(values)
    ).fetchone()
    driver.execute(b"DEALLOCATE asked")
    assert found is not None
    plan: dict[str, Any] = found[0][0]["Plan"]
    return plan


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    if node.get("Relation Name") in TABLES:
        yield node["Relation Name"], node["Node Type"], node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _scans(child)
