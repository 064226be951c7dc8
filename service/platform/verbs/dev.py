"""`service dev`: the same process as `serve`, with a PostgreSQL of its own and settings for a person at a terminal."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.platform.database import EmbeddedUnavailable
from service.platform.database.development import DevelopmentDatabaseUnusable
from service.platform.database.development_schema import bring_up_to_date
from service.platform.process.addresses import Urls
from service.platform.process.stage import Stage
from service.platform.reload.breakpoints import breakpoints
from service.platform.reload.child import Child, NotSupplied
from service.platform.reload.clock import StoppableClock
from service.platform.reload.colours import YELLOW, is_coloured, line_of
from service.platform.reload.failure import describe
from service.platform.settings import PlatformSettings, variable
from service.platform.verbs.dev_identity import ProviderUnavailable, refuse_another, signing_in_at
from service.platform.verbs.dev_supplies import Supplies
from service.platform.verbs.program import tell
from service.platform.verbs.serving import log_crash

ROOT = Path(__file__).parents[3]
# What differs from `serve` unless somebody set it: nobody routes traffic here, and a person reads the log.
DEFAULTS: Mapping[str, Any] = {"log_format": "console", "drain_delay": 0.0, "drain_spread": 0.0}
# Reasons why it cannot run that are one sentence, with what to do.
UNAVAILABLE = (DevelopmentDatabaseUnusable, EmbeddedUnavailable, NotSupplied, ProviderUnavailable)


def development_settings(
    settings: PlatformSettings, origins: Mapping[str, str]
) -> tuple[PlatformSettings, dict[str, str]]:
    """Return the settings with those of DEFAULTS that nobody has set, and the origins to match."""
    changed = {field: value for field, value in DEFAULTS.items() if origins[variable(field)] == "default"}
    return settings.model_copy(update=changed), {**origins, **dict.fromkeys(map(variable, changed), "service dev")}


@dataclass(frozen=True)
class Surroundings:
    """Who starts the process: nobody, or a parent that reloads it."""

    database: Callable[[], str]
    provider: Callable[[], str]
    terminal: Callable[[], Any]
    ready: Callable[[Urls, PlatformSettings], object]
    failed: Callable[[BaseException], object]
    stage: Stage = field(default_factory=Stage)
    end: Callable[[int], object] = os._exit
    clock: StoppableClock = field(default_factory=StoppableClock)


@contextmanager
def by_itself(data: Path) -> Iterator[Surroundings]:
    with ExitStack() as scope:
        supplies = Supplies(scope, data)

        def end(code: int) -> None:
            supplies.stop()
            os._exit(code)

        def ready(urls: Urls, _settings: PlatformSettings) -> None:
            supplies.welcome(urls.public, urls.management, reloads=False)

        yield Surroundings(supplies.database, supplies.provider, nullcontext, ready, log_crash, end=end)


def under_parent(descriptor: int, *, takes_over: bool) -> Surroundings:
    child = Child(descriptor)

    def ready(urls: Urls, settings: PlatformSettings) -> None:
        child.tell_ready(urls, settings.drain_bound)

    def failed(error: BaseException) -> None:
        if child.is_ready:
            log_crash(error)
        else:
            tell(describe(error, ROOT, coloured=is_coloured()), err=True)

    return Surroundings(
        child.database, child.provider, child.terminal, ready, failed, child.stage(takes_over=takes_over)
    )


def warn(line: str) -> None:
    tell(line_of(YELLOW, line, coloured=is_coloured()))


@contextmanager
def surrounded(
    around: Surroundings,
    settings: PlatformSettings,
    origins: Mapping[str, str],
    *,
    data: Path,
    identity: bool,
    forgetting: bool,
) -> Iterator[tuple[PlatformSettings, Mapping[str, str]]]:
    """Yield settings that lead to a migrated database, and to a provider if asked for. Raises one of UNAVAILABLE.

    A database that somebody named is theirs: it is used and never migrated, and ended by nobody here.
    """
    if identity:
        refuse_another(settings)
        settings, origins = signing_in_at(around.provider(), settings, origins)
    if settings.database_url is None:
        settings = bring_up_to_date(settings, around.database(), data, forgetting=forgetting, warn=warn)
    with breakpoints(around.clock, around.terminal):
        yield settings, origins
