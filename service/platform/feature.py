"""What a feature is, and what it is given.

A feature is a scope: `open` is an async context manager that takes Resources and yields its routes. What it opens
before the yield is up before the first request; what it closes after it is gone before the database closes.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.platform.settings import Catalogue, FeatureSettings, PlatformSettings

if TYPE_CHECKING:  # what serves is imported by who serves: a verb that asks a running service starts without it
    from quart import Blueprint

    from service.platform.database import Database
    from service.platform.jobs import Job
    from service.platform.lifecycle import Lifecycle
    from service.platform.server import RateLimits
    from service.platform.telemetry import Metrics

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Resources:
    """What main has opened, for features to use and not to close."""

    settings: PlatformSettings  # `settings.of(YourClass)` returns yours, or your feature's
    lifecycle: "Lifecycle"
    database: "Database"
    metrics: "Metrics"  # a feature adds its own; their names start with the feature's
    limits: "RateLimits"  # of each client address; whoever lets a client do more than ask takes a token


type Open = Callable[[Resources], AbstractAsyncContextManager["Blueprint"]]


@dataclass(frozen=True, slots=True)
class Feature:
    """A line in service/features.py. All that is named by a module's path is imported when it is used, not before."""

    name: str  # its settings are SERVICE_<NAME>_*
    open: Open
    settings: type[FeatureSettings] | None = None
    jobs: tuple["Job[...]", ...] = ()  # what it declares by `@job`; their workers are the platform's
    verbs: str | None = None  # a module whose `verbs` is a typer app: they become verbs of `service`
    load: str | None = None  # a module whose `Load` takes part in `service load` (platform/client/load_plan.py)
    smoke: str | None = None  # a module whose `smoke` takes part in `service smoke` (platform/client/smoke.py)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a feature is named by a-z, 0-9 and _, from a letter on; not {self.name!r}")


def catalogue(settings: type[PlatformSettings], features: Sequence[Feature]) -> Catalogue:
    """Return all settings of a service with these features. Raises ValueError when two are the same variable."""
    return Catalogue(settings, {one.name: one.settings for one in features if one.settings is not None})


def jobs_of(features: Sequence[Feature]) -> "tuple[Job[...], ...]":
    """Return what these features declare. Raises JobsTwice."""
    from service.platform.jobs import refuse_twins  # here: it imports what serves

    kinds = tuple(one for feature in features for one in feature.jobs)
    refuse_twins(kinds)
    return kinds
