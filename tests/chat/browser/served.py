"""A service for pages, which may be stopped and come back at its address."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import trio

from service.platform.testing.processes import Process, started
from tests.chat.browser.pages import free_ports

QUICK: dict[str, Any] = {"drain_delay": 0, "drain_spread": 0, "rate_per_address": 0}


class Service:
    """One process of the service that may be stopped and come back at its address."""

    def __init__(self, directory: Path, database_url: str, stack: ExitStack) -> None:
        self.database_url = database_url
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
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
