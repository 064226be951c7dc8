"""`service dev`: the same process as `serve`, with a PostgreSQL of its own and settings for a person at a terminal."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any

from service.platform.database.development import for_psql, open_development
from service.platform.name import TITLE
from service.platform.process.main import Urls
from service.platform.settings import PlatformSettings, variable
from service.platform.verbs.program import tell

# What differs from `serve` unless somebody set it: nobody routes traffic here, and a person reads the log.
DEFAULTS: Mapping[str, Any] = {"log_format": "console", "drain_delay": 0.0, "drain_spread": 0.0}


def development_settings(
    settings: PlatformSettings, origins: Mapping[str, str]
) -> tuple[PlatformSettings, dict[str, str]]:
    """Return the settings with those of DEFAULTS that nobody has set, and the origins to match."""
    changed = {field: value for field, value in DEFAULTS.items() if origins[variable(field)] == "default"}
    return settings.model_copy(update=changed), {**origins, **dict.fromkeys(map(variable, changed), "service dev")}


type OnReady = Callable[[Urls], object]


@contextmanager
def development_database(
    settings: PlatformSettings, data: Path, *, forgetting: bool = False
) -> Iterator[tuple[PlatformSettings, Callable[[int], object], OnReady]]:
    """Yield settings that lead to a migrated database, how to end the process at once, and what to say when ready.

    A database that somebody named is theirs: it is used and never migrated, and ended by nobody here.
    """
    if settings.database_url is not None:
        yield settings, os._exit, welcome
        return
    with open_development(settings, data, forgetting=forgetting) as (migrated, server):

        def end(code: int) -> None:
            server.stop()
            os._exit(code)

        psql = "psql" if which("psql") else str(server.bindir / "psql")
        shell = f"{shlex.quote(psql)} {shlex.quote(for_psql(server.url))}"
        yield migrated, end, partial(welcome, shell=shell)


def welcome(urls: Urls, *, shell: str = "") -> None:
    """Say what to try, once the service is ready."""
    commands = [
        f"curl -s {urls.public}/                or open it in a browser",
        f"curl -s {urls.public}/openapi.json    what else there is",
        f"curl -s {urls.management}/healthz         the operator's side",
    ]
    if shell:
        commands.append(shell)
    last = "Ctrl-C stops it, the database included." if shell else "Ctrl-C stops it."
    lines = ["", f"  {TITLE} is ready on {urls.public}", "", *(f"    {one}" for one in commands), "", f"  {last}", ""]
    tell("\n".join(lines))
