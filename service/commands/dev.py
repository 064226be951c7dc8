"""`service dev`: the same process as `serve`, with a PostgreSQL of its own and settings for a person at a terminal."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from service.database import migrate, open_embedded
from service.main import Urls
from service.settings import Settings

# What differs from `serve` unless somebody set it: nobody routes traffic here, and a person reads the log.
DEFAULTS: Mapping[str, Any] = {"log_format": "console", "drain_delay": 0.0, "drain_spread": 0.0}


def development_settings(settings: Settings, origins: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings with those of DEFAULTS that nobody has set, and the origins to match."""
    changed = {field: value for field, value in DEFAULTS.items() if origins[field] == "default"}
    return settings.model_copy(update=changed), {**origins, **dict.fromkeys(changed, "service dev")}


@contextmanager
def development_database(settings: Settings, data: Path) -> Iterator[tuple[Settings, Callable[[int], object]]]:
    """Yield settings that lead to a migrated database, and how to end the process at once, server included.

    A database that somebody named is theirs: it is used and never migrated.
    """
    if settings.database_url is not None:
        yield settings, os._exit
        return
    with open_embedded(data / "postgres") as server:
        settings = settings.model_copy(update={"database_url": SecretStr(server.url)})
        migrate(settings)

        def end(code: int) -> None:
            server.stop()
            os._exit(code)

        yield settings, end


def welcome(urls: Urls) -> None:
    """Say what to try, once the service is ready."""
    commands = (
        f"curl -s {urls.public}/api/hello?name=you",
        f"curl -s {urls.public}/healthz",
        f"curl -s {urls.management}/healthz        the operator's side",
        f".venv/bin/service chat {urls.public} --name you    a chat: here, and on the page in a browser",  # sample
    )
    print(f"\n  Trireme is ready on {urls.public}\n")
    for command in commands:
        print(f"    {command}")
    print("\n  Ctrl-C stops it, the database included.\n")
