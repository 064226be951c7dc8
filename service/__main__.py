"""The command line, and the `trio.run` of the service. `service` and `python -m service` are the same.

A verb imports what it needs when it runs, so that `--help` and the short verbs start fast.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from service.start import end_at_signals

if __name__ == "__main__":  # `python -m service`; the script has done it, and who imports this wants no change
    end_at_signals()

import structlog  # after the handlers: they take most of a second
import trio
import typer

from service.commands.verbs import clients
from service.settings import Settings, SettingsError, load_settings, unknown_names

if TYPE_CHECKING:
    from service.main import Urls
    from service.resources import Feature

CRASHED, WRONG = 1, 2

cli = typer.Typer(
    help="Trireme: a service on QuartTrio, Hypercorn's Trio worker and PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cli.add_typer(clients)


@cli.command()
def dev(
    data: Annotated[Path, typer.Option(help="Where the PostgreSQL of this verb keeps its data.")] = Path(".data"),
) -> None:
    """Serve with a PostgreSQL of its own, migrated, logging for people. With SERVICE_DATABASE_URL set: with that one.

    Example: SERVICE_BIND=127.0.0.1:8001 service dev
    """
    from service.commands.dev import development_database, development_settings, welcome

    settings, origins = development_settings(*load_or_exit())
    prepare_logs(settings)
    with development_database(settings, data) as (settings, end):
        process(settings, origins, end=end, on_ready=welcome)


@cli.command()
def serve() -> None:
    """Serve until SIGTERM or SIGINT, then drain. Waits, alive and not started, for a schema that it serves.

    Example: SERVICE_DATABASE_URL=postgresql://app@db.example.org/app service serve
    """
    settings, origins = load_or_exit()
    require_database(settings)
    prepare_logs(settings)
    process(settings, origins)


@cli.command()
def migrate(
    breaking: Annotated[
        bool, typer.Option(help="Also apply migrations that stop serving the release before this one.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the server.")] = 60,
) -> None:
    """Bring the schema to this code's head. Safe to run anywhere at any time; several at once queue.

    Example: service migrate --wait 300
    """
    from service.database import MigrationRefused, ServerAway, migrate

    settings, _ = load_or_exit()
    require_database(settings)
    prepare_logs(settings)
    try:
        typer.echo(migrate(settings, breaking=breaking, wait=wait).line)
    except (MigrationRefused, ServerAway) as error:
        fail(str(error), CRASHED)


@cli.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="The table in the README.")] = False,
    env: Annotated[bool, typer.Option("--env", help="The file .env.example.")] = False,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="The chart's schema of `config`.")] = False,
) -> None:
    """Print the effective settings and where each came from, passwords replaced.

    Example: SERVICE_LOG_LEVEL=debug service settings
    """
    from service.commands import settings as texts

    if markdown or env or json_schema:
        typer.echo(texts.markdown() if markdown else texts.env() if env else texts.json_schema())
    else:
        typer.echo(texts.table(*load_or_exit()))


@cli.command()
def check() -> None:
    """The doctor: settings, ports, descriptors, database, schema, clock; a line each, with what to do. 1 if one fails.

    Example: service check
    """
    from service.commands.check import findings

    settings, _ = load_or_exit()
    found = trio.run(findings, settings)
    for finding in found:
        typer.echo(finding)
    sys.exit(CRASHED if any(finding.failed for finding in found) else 0)


@cli.command()
def smoke(
    urls: Annotated[
        list[str], typer.Argument(help="Names that lead to the replicas one by one, with the public port.")
    ],
    replicas: Annotated[int, typer.Option(min=1, help="How many there must be.")] = 2,
    host: Annotated[str, typer.Option(help="The Host to send, where SERVICE_ALLOWED_HOSTS is set.")] = "",
    messages: Annotated[bool, typer.Option("--messages", help="Also send messages across.")] = False,  # sample
) -> None:
    """Try running replicas: each must answer its probes and a request. 1 if one does not.

    Example: service smoke http://demo-trireme-management:8000
    """
    from service.commands.smoke import SmokeError, smoke
    from service.commands.smoke_chat import pass_messages  # sample

    async def tell() -> None:
        async for line in smoke(urls, replicas=replicas, host=host):
            typer.echo(line)
        # sample begins
        if messages:
            async for line in pass_messages(urls, replicas=replicas, host=host):
                typer.echo(line)
        # sample ends

    try:
        trio.run(tell)
    except SmokeError as error:
        fail(str(error), CRASHED)


# sample begins
@cli.command()
def chat(
    url: Annotated[str, typer.Argument(help="Where the service is.")] = "http://127.0.0.1:8000",
    room: Annotated[str, typer.Option(help="1 to 64 of a-z, 0-9 and -.")] = "lobby",
    name: Annotated[str, typer.Option(help="Who to be; nobody checks it.")] = "terminal",
) -> None:
    """Chat from a terminal, over restarts of the service; the end of the input ends it. 1 if a line was not stored.

    Example: service chat http://127.0.0.1:8000 --room lobby --name ada
    """
    from service.commands.chat import chat

    try:
        unstored = trio.run(partial(chat, url, room=room, name=name))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if unstored:
        fail(f"{unstored} lines were not stored", CRASHED)


@cli.command()
def epoch() -> None:
    """Begin a new epoch of the chat: after a restore, or a failover that lost commits. Replicas take it up at once.

    Example: service epoch
    """
    from service.commands.chat_epoch import epoch

    settings, _ = load_or_exit()
    require_database(settings)
    prepare_logs(settings)
    typer.echo(f"the chat's epoch is now {trio.run(epoch, settings)}")


# sample ends
def load_or_exit() -> tuple[Settings, dict[str, str]]:
    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error), WRONG)


def require_database(settings: Settings) -> None:
    if settings.database_url is None:
        fail("SERVICE_DATABASE_URL: must be set; `service dev` brings a PostgreSQL of its own", WRONG)


def prepare_logs(settings: Settings) -> None:
    from service.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    for name in unknown_names():
        structlog.get_logger(__name__).warning("unknown setting ignored", variable=name)


def process(
    settings: Settings,
    origins: Mapping[str, str],
    *,
    end: Callable[[int], object] = os._exit,
    on_ready: "Callable[[Urls], object]" = lambda _: None,
    features: "Sequence[Feature] | None" = None,
) -> None:
    """Run main to its end; exits with 2 for what the operator can mend in the settings, with 1 for a crash."""
    from service.features import FEATURES
    from service.main import main
    from service.processor import one_cpu

    served = FEATURES if features is None else features
    try:
        with one_cpu() if settings.one_cpu else nullcontext():
            trio.run(partial(main, settings, served, origins=origins, end=end, on_ready=on_ready))
    except* SettingsError as group:
        fail("\n".join(str(error) for error in group.exceptions), WRONG)
    except* Exception:
        structlog.get_logger(__name__).critical("crashed", exc_info=True)
        sys.exit(CRASHED)


def fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)


def run() -> None:
    cli(prog_name="service")


if __name__ == "__main__":
    run()
