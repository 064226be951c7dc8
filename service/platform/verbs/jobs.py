"""`service jobs`: what waits, runs and is dead in a running service, and what may be done with it."""

from typing import Annotated, Literal
from urllib.parse import urlencode

import typer

from service.platform.verbs.program import WRONG, fail
from service.platform.verbs.remote import tell
from service.platform.verbs.where import management_url

verbs = typer.Typer(no_args_is_help=False)

Url = Annotated[
    str | None,
    typer.Option(
        "--url", help="The management listener, or a port-forward to it; else where SERVICE_MANAGEMENT_BIND says."
    ),
]
Id = Annotated[int, typer.Argument(min=1, help="The job's id.")]
IdOrNone = Annotated[int | None, typer.Argument(min=1, help="The job's id.")]
Kind = Annotated[str | None, typer.Option(help="In the place of an id: all dead ones of this kind.")]
State = Literal["waiting", "running", "done", "dead", "discarded"]


@verbs.callback(invoke_without_command=True)
def jobs(context: typer.Context, url: Url = None) -> None:
    """Print how many jobs wait, run and are dead, by kind; or list them, show one, and act on it.

    Example: service jobs list --state dead
    """
    if context.invoked_subcommand is None:
        from service.platform.verbs.jobs_report import counts

        where = management_url(context, url)
        tell(lambda: counts(where))


@verbs.command("list")
def list_(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only those of this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
) -> None:
    """Print jobs, the newest first.

    Example: service jobs list --state waiting --kind charge
    """
    from service.platform.verbs.jobs_report import some

    given = {"state": state, "kind": kind, "limit": limit}
    query = urlencode({name: value for name, value in given.items() if value is not None}, errors="surrogateescape")
    where = _where(context)
    tell(lambda: some(where, query))


@verbs.command()
def show(context: typer.Context, id: Id) -> None:  # noqa: A002  what the argument is called
    """Print one job with its arguments and its latest error.

    Example: service jobs show 7
    """
    _about(context, id)


@verbs.command()
def retry(context: typer.Context, id: IdOrNone = None, kind: Kind = None) -> None:  # noqa: A002
    """Let a dead or discarded job wait again, with all its retries; or all that are dead of a kind.

    Example: service jobs retry --kind charge
    """
    _about_some(context, id, kind, "retry")


@verbs.command()
def discard(
    context: typer.Context,
    id: IdOrNone = None,  # noqa: A002
    kind: Annotated[str | None, typer.Option(help="In the place of an id: all of this kind.")] = None,
    state: Annotated[
        Literal["dead", "waiting"] | None, typer.Option(help="With --kind: those in this state.  [default: dead]")
    ] = None,
) -> None:
    """End a job that waits, is dead or has lost its worker, or all that wait or are dead of a kind.

    They are kept for SERVICE_JOBS_RETENTION.

    Example: service jobs discard --kind charge --state waiting
    """
    _about_some(context, id, kind, "discard", state)


@verbs.command()
def run(context: typer.Context, id: Id) -> None:  # noqa: A002
    """Make a job due now that waits for its time.

    Example: service jobs run 7
    """
    _about(context, id, "run")


def _about(context: typer.Context, id: int, change: str = "") -> None:  # noqa: A002
    from service.platform.verbs.jobs_report import one

    where = _where(context)
    tell(lambda: one(where, id, change))


def _about_some(
    context: typer.Context,
    id: int | None,  # noqa: A002
    kind: str | None,
    change: str,
    state: str | None = None,
) -> None:
    from service.platform.verbs.jobs_report import of_a_kind

    if (id is None) == (kind is None):
        fail("name one job by its id, or a kind by --kind", WRONG)
    if id is None:
        query = urlencode({"kind": kind, "state": state or "dead"}, errors="surrogateescape")
        where = _where(context)
        tell(lambda: of_a_kind(where, query, change))
    elif state is None:
        _about(context, id, change)
    else:
        fail(f"--state goes with --kind: job {id} is meant whatever its state is", WRONG)


def _where(context: typer.Context) -> str:
    """Return the management listener that `jobs` was told of; here, so that `--help` needs none."""
    return management_url(context, context.parent.params["url"] if context.parent else None)
