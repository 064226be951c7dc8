"""The chat's runbook: what it has an operator tell PostgreSQL, so that somebody is forgotten, leaves no gap."""

import re
from pathlib import Path

import psycopg
import trio

from service.platform.testing.contract import Client
from tests.chat.conftest import Start
from tests.platform.database.observer import conninfo

PAGE = (Path(__file__).parents[2] / "service" / "chat" / "runbook.md").read_text()
[FORGET] = re.findall(r'"(UPDATE chat_message .*?)"', PAGE)
PATH = "/api/rooms/lobby/messages"


async def test_who_is_forgotten_leaves_the_places_of_his_messages(start: Start, writable_database_url: str) -> None:
    with trio.fail_after(60):
        service = await start(database_url=writable_database_url)
        async with Client(service.url) as client:
            for name in ("ada", "bob", "ada"):
                await client.post(PATH, json={"text": f"of {name}", "from": name})
            with psycopg.connect(conninfo(writable_database_url), autocommit=True) as connection:
                connection.execute("UPDATE chat_message SET subject = 'u-1' WHERE author = 'ada'")
                forgotten = connection.execute(FORGET.replace("SUBJECT", "u-1")).rowcount
            messages = (await client.get(PATH)).json()["messages"]

    assert forgotten == 2
    told = [(one["seq"], one["from"], one["text"], one["subject"]) for one in messages]
    assert told == [(1, "erased", "erased", None), (2, "bob", "of bob", None), (3, "erased", "erased", None)]
