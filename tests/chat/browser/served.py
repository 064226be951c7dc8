"""A service for pages, which may be stopped and come back at its address."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa
import trio

from service.platform.testing.own_server import free_port
from service.platform.testing.processes import Process, started

NETWORK = r"WebSocket connection to .* failed|Failed to load resource"  # which Chromium logs, whatever a page does
QUICK: dict[str, Any] = {"drain_delay": 0, "drain_spread": 0, "rate_per_address": 0}

FILL = """
    WITH room AS (UPDATE chat_room SET seq = seq + :count WHERE name = :room RETURNING name, seq - :count AS before)
    INSERT INTO chat_message (room, seq, id, author, text, at)
    SELECT room.name, before + n, md5(room.name || before || n), 'Cid', 'filled ' || n, now()
    FROM room, generate_series(1, :count) n
"""


class Service:
    """One process of the service that may be stopped and come back at its address."""

    def __init__(self, directory: Path, database_url: str, stack: ExitStack) -> None:
        self.database_url = database_url
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_port()}"
        self._stack = stack
        self.process = self.start()

    def start(self) -> Process:
        bind = self.url.removeprefix("http://")
        service = started(self.directory, "serve", bind=bind, database_url=self.database_url, **QUICK)
        process = self._stack.enter_context(service)
        trio.run(process.wait_ready)
        return process

    def restart(self) -> None:
        self.process.process.kill()
        self.process.process.wait(5)
        self.process = self.start()

    def post(self, room: str, *texts: str) -> None:
        with httpx2.Client(base_url=self.url) as client:
            for text in texts:
                client.post(f"/api/rooms/{room}/messages", json={"text": text, "from": "Ben"}).raise_for_status()

    def execute(self, statement: str, **values: object) -> None:
        engine = sa.create_engine(self.database_url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement), values)
        engine.dispose()

    def fill(self, room: str, count: int) -> None:
        """Let a room have so many messages more, at once, as another replica could have stored them."""
        self.execute(FILL, room=room, count=count)
