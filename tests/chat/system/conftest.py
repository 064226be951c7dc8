"""A PostgreSQL of the newest version for tests that restart it; it keeps what it has committed when it is killed."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.platform.database.launch import find_binaries
from service.platform.testing.own_server import OwnServer


@pytest.fixture
def newest_server(clusters: Callable[[Path], Path]) -> Iterator[OwnServer]:
    bindir = find_binaries()
    with closing(OwnServer(clusters(bindir), bindir)) as server:
        server.settings["synchronous_commit"] = "on"
        server.start()
        yield server
