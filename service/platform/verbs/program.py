"""What every verb shares: the service that it is a verb of, its settings, and how it gives up.

Imports no typer: a verb that runs for long starts without it (run.py).
"""

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from service.platform.process.start import absent

if TYPE_CHECKING:  # a verb that needs none of it starts without it
    import typer

    from service.platform.feature import Feature
    from service.platform.settings import Catalogue, PlatformSettings

# Exit codes, beside 0: all is well (`serve`: drained), and 128 + n: ended by signal n.
CRASHED = 1  # a bug, or a check that found something
WRONG = 2  # settings or arguments that cannot be used, a port that is taken
# Of `migrate`, so that a Job knows what is worth a repeat (the chart's podFailurePolicy reads them).
UNREACHABLE = 3  # no database, or one without time for us: repeat it
REFUSED = 4  # breaking, ahead, another history, two heads, a right that lacks: a person must decide
FAILED = 5  # a migration's own SQL or code failed: a person must mend it


@dataclass(frozen=True, slots=True)
class Program:
    """A service: your settings class, or its name as a feature's names are, and your features."""

    settings: "type[PlatformSettings] | str"
    features: "Sequence[Feature]"

    @property
    def catalogue(self) -> "Catalogue":
        from service.platform.feature import catalogue, named

        return catalogue(named(self.settings), self.features)


type MakeProgram = Callable[[], Program]


def program(context: "typer.Context") -> Program:
    """Return the service whose verb this is."""
    make: MakeProgram = context.obj  # run_program has put it there
    return make()


def load_or_exit(context: "typer.Context") -> "tuple[PlatformSettings, dict[str, str]]":
    """Return the settings and their origins; what is wrong with them is told, a line each, and ends the verb with 2."""
    return read_settings(program(context))


def read_settings(program: Program) -> "tuple[PlatformSettings, dict[str, str]]":
    """Return the same of a program."""
    from service.platform.settings import SettingsError

    try:
        return program.catalogue.load()
    except SettingsError as error:
        fail(str(error), WRONG)


def database_settings(context: "typer.Context") -> "tuple[PlatformSettings, dict[str, str]]":
    """Return the same for a verb that needs a database and logs; without an address it ends with 2."""
    return read_database_settings(program(context))


def read_database_settings(program: Program) -> "tuple[PlatformSettings, dict[str, str]]":
    """Return the same of a program."""
    settings, origins = read_settings(program)
    if settings.database_url is None:
        fail("SERVICE_DATABASE_URL: must be set; `service dev` brings a PostgreSQL of its own", WRONG)
    begin_logs(program, settings)
    return settings, origins


@contextmanager
def any_database(context: "typer.Context") -> "Iterator[PlatformSettings]":
    """Yield settings with an address: as they are, else of the development database, migrated; it need not run."""
    settings, _ = load_or_exit(context)
    prepare_logs(context, settings)
    if settings.database_url is not None:
        yield settings
        return
    from service.platform.database import EmbeddedUnavailable
    from service.platform.database.development import DevelopmentDatabaseUnusable
    from service.platform.database.development_schema import bring_up_to_date, with_development_database

    try:
        with with_development_database(settings) as found:
            assert found.database_url is not None  # noqa: S101  that is what it is for
            yield bring_up_to_date(settings, found.database_url.get_secret_value())
    except (EmbeddedUnavailable, DevelopmentDatabaseUnusable) as error:
        fail(str(error), CRASHED)


def import_structlog() -> None:
    """Import it before others do, and without rich, which is for tracebacks in colours: it makes none of ours."""
    with absent("rich"):
        import structlog  # noqa: F401


def prepare_logs(context: "typer.Context", settings: "PlatformSettings") -> None:
    begin_logs(program(context), settings)


def begin_logs(program: Program, settings: "PlatformSettings") -> None:
    """Log as the settings say, and first which of them nobody knows."""
    import_structlog()
    import structlog

    from service.platform.telemetry.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    for name in program.catalogue.unknown_names():
        structlog.get_logger(__name__).warning("unknown setting ignored", variable=name)


def run_client[T](run: "Callable[..., Awaitable[T]]", *given: object) -> T:
    """Return what a client's run in Trio returns; a signal that asks it to end cancels it, and exits with 128 + n."""
    import trio

    from service.platform.process.asked import until_asked

    return trio.run(until_asked, partial(run, *given))


def fail(message: str, code: int) -> NoReturn:
    tell(message, err=True)
    sys.exit(code)


def tell(message: str, *, err: bool = False) -> None:
    """Print to the person who started the verb, if somebody reads it: a full disk must not change what was done."""
    with suppress(OSError):
        print(message, file=sys.stderr if err else sys.stdout, flush=True)
