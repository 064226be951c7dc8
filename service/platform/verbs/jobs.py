"""`service jobs`: what waits, runs and is dead in a running service, and what may be done with it."""

from typing import Annotated, Literal
from urllib.parse import urlencode

import typer

from service.platform.verbs.remote import LOCAL, tell

verbs = typer.Typer(no_args_is_help=False)

Url = Annotated[str, typer.Option("--url", help="The management listener: this machine's, or a port-forward to it.")]
Id = Annotated[int, typer.Argument(min=1, help="The job's id.")]
State = Literal["waiting", "running", "done", "dead", "discarded"]


@verbs.callback(invoke_without_command=True)
def jobs(context: typer.Context, url: Url = LOCAL) -> None:
    """Print how many jobs wait, run and are dead, by kind; or list them, show one, and act on it.

    Example: service jobs list --state dead
    """
    context.obj = url
    if context.invoked_subcommand is None:
        from service.platform.verbs.jobs_report import counts

        tell(lambda: counts(url))


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
    query = urlencode({name: value for name, value in given.items() if value is not None})
    tell(lambda: some(context.obj, query))


@verbs.command()
def show(context: typer.Context, id: Id) -> None:  # noqa: A002  what the argument is called
    """Print one job with its arguments and its latest error.

    Example: service jobs show 7
    """
    _about(context, id)


@verbs.command()
def retry(context: typer.Context, id: Id) -> None:  # noqa: A002
    """Let a dead or discarded job wait again, with all its retries.

    Example: service jobs retry 7
    """
    _about(context, id, "retry")


@verbs.command()
def discard(context: typer.Context, id: Id) -> None:  # noqa: A002
    """End a job that waits or is dead; it is kept for SERVICE_JOBS_RETENTION.

    Example: service jobs discard 7
    """
    _about(context, id, "discard")


@verbs.command()
def run(context: typer.Context, id: Id) -> None:  # noqa: A002
    """Make a job due now that waits for its time.

    Example: service jobs run 7
    """
    _about(context, id, "run")


def _about(context: typer.Context, id: int, change: str = "") -> None:  # noqa: A002
    from service.platform.verbs.jobs_report import one

    tell(lambda: one(context.obj, id, change))
