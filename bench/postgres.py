"""PostgreSQL for a benchmark: a server that is thrown away, and its address as others read it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from service.platform.database import Embedded, open_embedded
from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings, SecretURL


@contextmanager
def migrated(*, durable: bool = False) -> Iterator[Embedded]:
    """Run a server, migrated, in a folder that is removed at the end."""
    with (
        tempfile.TemporaryDirectory() as directory,
        open_embedded(Path(directory) / "data", durable=durable, settings={"max_connections": "300"}) as embedded,
    ):
        migrate(PlatformSettings(database_url=SecretURL(embedded.url)), wait=10)
        yield embedded


def plain(url: str, database: str | None = None) -> str:
    """Return a URL of SQLAlchemy's as libpq and asyncpg read it, perhaps of another database."""
    return make_url(url).set(drivername="postgresql", database=database).render_as_string(hide_password=False)
