"""The verbs that run a service here, or prepare one: `dev serve work migrate settings check`."""

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service.platform.process.start import absent
from service.platform.verbs import serving
from service.platform.verbs.program import (
    CRASHED,
    FAILED,
    REFUSED,
    UNREACHABLE,
    WRONG,
    database_settings,
    fail,
    import_structlog,
    load_or_exit,
    prepare_logs,
    program,
    run_client,
    tell,
)

verbs = typer.Typer()

FORGET = "Go on from before the migrations that migrations/removed.toml names; their tables stay."


@verbs.command()
def dev(  # noqa: PLR0917  an option is a parameter
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Data directory of its PostgreSQL server.")] = Path(".data"),
    identity: Annotated[
        bool, typer.Option("--identity", help="Start an identity provider too, at which anybody can sign in.")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help=FORGET)] = False,
    reload: Annotated[bool, typer.Option(help="Start anew at each save, without losing a request.")] = True,
    under: Annotated[int | None, typer.Option(hidden=True)] = None,
    takes_over: Annotated[bool, typer.Option("--takes-over", hidden=True)] = False,
) -> None:
    """Run the service for development. It starts and migrates its own PostgreSQL unless SERVICE_DATABASE_URL is set.

    Example: SERVICE_BIND=127.0.0.1:8001 service dev
    """
    from service.platform.reload.watching import NO_RELOAD, can_watch

    if reload and under is None and can_watch():
        from service.platform.verbs.dev_parent import run_parent

        sys.exit(run_parent(sys.argv[1:], data))
    if reload and under is None:
        tell(NO_RELOAD, err=True)
    import_structlog()
    from service.platform.feature import import_all

    with absent("pygments"):  # as for `migrate`
        from service.platform.verbs.dev import UNAVAILABLE, by_itself, development_settings, surrounded, under_parent
    with by_itself(data) if under is None else nullcontext(under_parent(under, takes_over=takes_over)) as around:
        try:
            loaded = development_settings(*load_or_exit(context))
            prepare_logs(context, loaded[0])
            import_all(program(context).features)  # code that does not load migrates nothing
            with surrounded(around, *loaded, data=data, identity=identity, forgetting=forget) as (settings, origins):
                serving.process(
                    program(context).features, settings, origins, end=around.end, stage=around.stage,
                    clock=around.clock, on_ready=lambda urls: around.ready(urls, settings), failed=around.failed,
                )  # fmt: skip
        except UNAVAILABLE as error:
            fail(str(error), WRONG)
        except Exception as error:  # of the code that was just saved, whatever it does
            around.failed(error)
            sys.exit(CRASHED)


@verbs.command()
def address(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Data directory of `service dev`.")] = Path(".data"),
) -> None:
    """Print the database's address for psql. It is that of the settings, or else of a running `dev`; no password.

    Example: psql "$(service address)"
    """
    from service.platform.database.development import for_psql
    from service.platform.database.embedded import running_url

    settings, _ = load_or_exit(context)
    given = settings.database_direct_url or settings.database_url
    url = given.get_secret_value() if given else running_url(data / "postgres")
    if url is None:
        fail(f"SERVICE_DATABASE_URL is not set, and no `service dev` runs on {data}", CRASHED)
    typer.echo(for_psql(url))


@verbs.command()
def serve(context: typer.Context) -> None:
    """Run the service until SIGTERM or SIGINT. It waits for a schema that it can serve, and drains at the end.

    Example: SERVICE_DATABASE_URL=postgresql://app@db.example.org/app service serve
    """
    serving.serve(program(context))


@verbs.command()
def work(context: typer.Context) -> None:
    """Run jobs until SIGTERM or SIGINT, and serve nobody but operators: for workers of their own, beside `serve`.

    Example: SERVICE_JOBS_CONCURRENCY=20 service work
    """
    serving.work(program(context))


@verbs.command()
def migrate(
    context: typer.Context,
    breaking: Annotated[
        bool, typer.Option(help="Also apply migrations that the previous release cannot work with.")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help=FORGET)] = False,
    wait: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait for the database server.")] = 60,
) -> None:
    """Migrate the database to the newest revision. Several may run at once: they take turns.

    Exit codes: 0 done, or nothing to do; 2 wrong settings; 3 the database cannot be reached or is busy, so a repeat may
    help; 4 refused (a breaking migration, a schema that is ahead or of another history, a missing right, two heads);
    5 a migration's SQL failed.

    Example: service migrate --wait 300
    """
    settings, _ = database_settings(context)
    from service.platform.database import MigrationRefused, ServerAway

    with absent("pygments"):  # of which Alembic's templates load every lexer, for pages of errors
        from service.platform.database.migrate import migrate
        from service.platform.database.progress import MigrationFailed
    try:
        tell(migrate(settings, breaking=breaking, forgetting=forget, wait=wait).line)
    except ServerAway as error:
        fail(str(error), UNREACHABLE)
    except MigrationRefused as error:
        fail(str(error), REFUSED)
    except MigrationFailed as error:
        fail(str(error), FAILED)


@verbs.command()
def settings(
    context: typer.Context,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table for the README.")] = False,
    env: Annotated[bool, typer.Option("--env", help="Print the file .env.example.")] = False,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the JSON schema of the chart's `config`.")
    ] = False,
) -> None:
    """Print the settings in force. Each is shown with its source; passwords are replaced.

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
    """Check settings, ports, descriptors, database, schema and clock. Prints a line for each; exits 1 if one fails.

    Example: service check
    """
    import_structlog()
    from service.platform.feature import import_all
    from service.platform.verbs.check import findings

    settings, _ = load_or_exit(context)
    features, unknown = program(context).features, program(context).catalogue.unknown_names()
    import_all(features)  # whose tables are looked at
    has_jobs = any(feature.jobs for feature in features)
    found = run_client(partial(findings, settings, unknown=unknown, has_jobs=has_jobs))
    for finding in found:
        typer.echo(finding)
    sys.exit(CRASHED if any(finding.failed for finding in found) else 0)
