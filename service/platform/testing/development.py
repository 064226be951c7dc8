"""A development database that is there already, for tests of what begins on one: making each anew takes a second."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.platform.database import open_embedded
from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings

type Lay = Callable[[Path], None]


@pytest.fixture(scope="session")
def lay_development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lay]:
    """Yield what lays `.data` in a directory, as `service dev` leaves it there: migrated, and nobody runs it."""
    made = tmp_path_factory.mktemp("development") / "postgres"

    def lay(directory: Path) -> None:
        if not made.exists():
            with open_embedded(made) as server:
                migrate(PlatformSettings(database_url=server.url))
        shutil.copytree(made, directory / ".data" / "postgres")

    yield lay
    shutil.rmtree(made.parent)
