"""The verbs that run a service here, or prepare one: `dev serve migrate settings check`."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import trio
import typer

from service.platform.seams import SeamsError
from service.platform.settings import PlatformSettings, SettingsError
from service.platform.verbs.program import (
    CRASHED,
    WRONG,
    database_settings,
    fail,
    load_or_exit,
    prepare_logs,
    program,
)

if TYPE_CHECKING:
    from service.platform.feature import Feature
    from service.platform.process.main import Urls

verbs = typer.Typer()


@verbs.command()
def dev(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Where the PostgreSQL of this verb keeps its data.")] = Path(".data"),
) -> None:
    """Serve with a PostgreSQL of its own, migrated, logging for people. With SERVICE_DATABASE_URL set: with that one.

    Example: SERVICE_BIND=127.0.0.1:8001 service dev
    """
    from service.platform.verbs.dev import development_database, development_settings, welcome

    settings, origins = development_settings(*load_or_exit(context))
    prepare_logs(context, settings)
    with development_database(settings, data) as (settings, end):
        process(program(context).features, settings, origins, end=end, on_ready=welcome)


@verbs.command()
def serve(context: typer.Context) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Waits, alive and not started, for a schema that it serves.

    Example: SERVICE_DATABASE_URL=postgresql://app@db.example.org/app service serve
    """
    settings, origins = database_settings(context)
    process(program(context).features, settings, origins)


@verbs.command()
def migrate(
    context: typer.Context,
    breaking: Annotated[
        bool, typer.Option(help="Also apply migrations that stop serving the release before this one.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the server.")] = 60,
) -> None:
    """Bring the schema to this code's head. Safe to run anywhere at any time; several at once queue.

    Example: service migrate --wait 300
    """
    from service.platform.database import MigrationRefused, ServerAway, migrate

    settings, _ = database_settings(context)
    try:
        typer.echo(migrate(settings, breaking=breaking, wait=wait).line)
    except (MigrationRefused, ServerAway) as error:
        fail(str(error), CRASHED)


@verbs.command()
def settings(
    context: typer.Context,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table in the README.")] = False,
    env: Annotated[bool, typer.Option("--env", help="The file .env.example.")] = False,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="The chart's schema of `config`.")] = False,
) -> None:
    """Print the effective settings and where each came from, passwords replaced.

    Example: SERVICE_LOG_LEVEL=debug service settings
    """
    from service.platform.settings import documents

    known = program(context).catalogue
    if markdown or env or json_schema:
        make = documents.markdown if markdown else documents.env if env else documents.json_schema
        typer.echo(make(known))
    else:
        typer.echo(documents.table(*load_or_exit(context)))


@verbs.command()
def check(context: typer.Context) -> None:
    """The doctor: settings, ports, descriptors, database, schema, clock; a line each, with what to do. 1 if one fails.

    Example: service check
    """
    from service.platform.verbs.check import findings

    settings, _ = load_or_exit(context)
    found = trio.run(findings, settings)
    for finding in found:
        typer.echo(finding)
    sys.exit(CRASHED if any(finding.failed for finding in found) else 0)


def process(
    features: "Sequence[Feature]",
    settings: PlatformSettings,
    origins: Mapping[str, str],
    *,
    end: Callable[[int], object] = os._exit,
    on_ready: "Callable[[Urls], object]" = lambda _: None,
) -> None:
    """Run main to its end; exits with 2 for what the operator can mend, with 1 for a crash."""
    from service.platform.process.main import main
    from service.platform.process.one_cpu import one_cpu

    try:
        with one_cpu() if settings.one_cpu else nullcontext():
            trio.run(partial(main, settings, features, origins=origins, end=end, on_ready=on_ready))
    except* (SettingsError, SeamsError) as group:
        fail("\n".join(str(error) for error in group.exceptions), WRONG)
    except* Exception:
        structlog.get_logger(__name__).critical("crashed", exc_info=True)
        sys.exit(CRASHED)
