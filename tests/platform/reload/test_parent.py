"""What children ask their parent for: a socket that stays, or why there is none."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.platform.reload.parent import Parent

type Answered = tuple[dict[str, Any], socket.socket | None]


@pytest.fixture
def parent() -> Iterator[Parent]:
    made = Parent(["dev"], Path(), {}, tell=lambda _: None, on_first=lambda _: None, coloured=False)
    yield made
    made._close_listeners()


def ask(parent: Parent, address: str) -> Answered:
    return parent._answers["listener"]({"field": "bind", "address": address})


def test_an_address_that_cannot_be_had_is_told_to_who_asks_for_it(parent: Parent) -> None:
    """Who is serving goes on: a save of `.env` may say anything."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = ask(parent, f"127.0.0.1:{taken.getsockname()[1]}")

    assert answer == ({"number": errno.EADDRINUSE, "error": os.strerror(errno.EADDRINUSE)}, None)
    assert ask(parent, "a..b:80") == ({"number": 0, "error": "it is no host name"}, None)


def test_the_port_that_the_system_chose_stays_over_saves_and_while_nobody_serves(parent: Parent) -> None:
    host = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # no other test's

    def opened() -> socket.socket:
        _, listener = ask(parent, f"{host}:0")
        assert listener is not None
        return listener

    first, again = opened(), opened()
    place = first.getsockname()
    parent._close_listeners()

    assert again is first
    assert first.fileno() == -1  # closed
    assert opened().getsockname() == place
