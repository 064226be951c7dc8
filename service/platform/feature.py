"""What a feature is, and what it is given.

A feature is a scope: `open` is an async context manager that takes Resources and yields its routes. What it opens
before the yield is up before the first request; what it closes after it is gone before the database closes.
"""

import re
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a verb imports what it needs: of features all know the names, and few anything else
    from quart import Blueprint

    from service.platform.database import Database
    from service.platform.jobs import Job
    from service.platform.lifecycle import Lifecycle
    from service.platform.server import RateLimits
    from service.platform.settings import Catalogue, FeatureSettings, PlatformSettings
    from service.platform.telemetry import Metrics

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Resources:
    """What main has opened, for features to use and not to close."""

    settings: "PlatformSettings"  # `settings.of(YourClass)` returns yours, or your feature's
    lifecycle: "Lifecycle"
    database: "Database"
    metrics: "Metrics"  # a feature adds its own; their names start with the feature's
    limits: "RateLimits"  # of each client address; whoever lets a client do more than ask takes a token


type Open = Callable[[Resources], AbstractAsyncContextManager["Blueprint"]]


@dataclass(frozen=True, slots=True)
class Feature:
    """A line in service/features.py. All that is named by a module's path is imported when it is used, not before.

    A function, a class or a job is given as it is, or by its name, "service.notes.routes:open_notes": so that a verb
    that only asks which features there are starts without what serves.
    """

    name: str  # its settings are SERVICE_<NAME>_*
    open: Open | str
    settings: "type[FeatureSettings] | str | None" = None
    jobs: tuple["Job[...] | str", ...] = ()  # what it declares by `@job`; their workers are the platform's
    verbs: str | None = None  # a module whose `verbs` is a typer app: they become verbs of `service`
    load: str | None = None  # a module whose `Load` takes part in `service load` (platform/client/load_plan.py)
    smoke: str | None = None  # a module whose `smoke` takes part in `service smoke` (platform/client/smoke.py)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a feature is named by a-z, 0-9 and _, from a letter on; not {self.name!r}")

    def opened(self, resources: Resources) -> AbstractAsyncContextManager["Blueprint"]:
        """Return the scope in which the feature is open, which yields its routes."""
        opening: Open = named(self.open)
        return opening(resources)


def named(what: Any) -> Any:
    """Return what a name "module:name" stands for, importing it, or `what` itself when it is no name.

    Raises ImportError, or AttributeError for a name that is not in its module. A module that calls sys.exit is one that
    cannot be imported: else the process would end with its code, and perhaps without a word.
    """
    if not isinstance(what, str):
        return what
    module, _, name = what.partition(":")
    return getattr(imported(lambda: import_module(module)), name)


def imported[T](load: Callable[[], T]) -> T:
    """Return what is imported by a call. Raises ImportError where a module calls sys.exit meanwhile."""
    try:
        return load()
    except SystemExit as asked:
        if type(asked) is not SystemExit:
            raise  # a signal has asked
        *_, (frame, _) = traceback.walk_tb(asked.__traceback__)
        said = f"{frame.f_globals['__name__']} called sys.exit({asked.code!r}) as it was imported"
        raise ImportError(said).with_traceback(asked.__traceback__) from None


def import_all(features: Sequence[Feature]) -> None:
    """Import what serves of these features, their tables with it. Raises as `named`."""
    for feature in features:
        for what in (feature.open, *feature.jobs):
            named(what)


def catalogue(settings: "type[PlatformSettings]", features: Sequence[Feature]) -> "Catalogue":
    """Return all settings of a service with these features. Raises ValueError when two are the same variable."""
    from service.platform.settings import Catalogue  # here: who only names features needs none

    return Catalogue(settings, {one.name: named(one.settings) for one in features if one.settings is not None})


def jobs_of(features: Sequence[Feature]) -> "tuple[Job[...], ...]":
    """Return what these features declare. Raises JobsTwice."""
    from service.platform.jobs import refuse_twins  # here: it imports what serves

    kinds: tuple[Job[...], ...] = tuple(named(one) for feature in features for one in feature.jobs)
    refuse_twins(kinds)
    return kinds
