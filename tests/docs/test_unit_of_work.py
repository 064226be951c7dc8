"""docs/unit-of-work.md: its loop finds what a process committed and was killed before it told."""

import re
from pathlib import Path
from textwrap import indent
from typing import Any

import psycopg
import trio
from sqlalchemy import Connection, text

from service.platform.database import open_database
from service.platform.testing.fixtures import MakeSettings

PAGE = Path(__file__).parents[2] / "docs" / "unit-of-work.md"


def listening() -> str:
    """Return the page's loop, as the body of a function, which looks more often here."""
    block = r"^```python\n(async with database\.listen.*?)^```$"
    [loop] = re.findall(block, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(loop).replace("move_on_after(5)", "move_on_after(0.05)")


async def test_what_nobody_told_is_found(make_settings: MakeSettings, writable_database_url: str) -> None:
    seen: set[str] = set()

    def select_after(connection: Connection, *, seq: int) -> None:
        seen.update(connection.execute(text("SELECT text FROM said WHERE seq > :seq"), {"seq": seq}).scalars())

    made: dict[str, Any] = {"trio": trio, "select_after": select_after, "cursor": 0}
    exec(f"async def listen(database):\n{indent(listening(), '    ')}", made)  # noqa: S102  the page's own
    with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as killed:
        killed.execute("CREATE TABLE said (seq bigint PRIMARY KEY, text text)")
        killed.execute("INSERT INTO said VALUES (1, 'before')")
        async with open_database(make_settings(database_url=writable_database_url)) as database:
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(database.keep_running, made["listen"], database)
                    while "before" not in seen:
                        await trio.sleep(0.01)
                    killed.execute("INSERT INTO said VALUES (2, 'untold')")
                    while "untold" not in seen:
                        await trio.sleep(0.01)
                    nursery.cancel_scope.cancel()

    assert seen == {"before", "untold"}
