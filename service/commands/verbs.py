"""The verbs that are clients of a running service; as in `__main__`, each imports what it needs when it runs."""

import sys
from collections.abc import Callable
from typing import Annotated, Literal

import typer

clients = typer.Typer()

Management = Annotated[str, typer.Argument(help="The management listener: this machine's, or a port-forward to it.")]
LOCAL = "http://127.0.0.1:9000"


@clients.command()
def info(url: Management = LOCAL) -> None:
    """Print what a running service is: version, revision, dependencies, phase, schema.

    Example: kubectl exec deploy/demo-trireme -- service info
    """
    from service.commands.inspect import facts

    tell(lambda: facts(url))


@clients.command()
def tasks(
    url: Management = LOCAL,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print who waits for what in a running service: tasks, cancel scopes, threads, units of work.

    Example: service tasks http://localhost:9000
    """
    from service.commands.inspect import ask, tree

    tell(lambda: ask(url, "/tasks", accept="application/json") if json else tree(url, colours=sys.stdout.isatty()))


@clients.command()
def loglevel(
    url: Management = LOCAL,
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option("--set", help="The level from now on.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="After which the usual level returns.")] = 300,
) -> None:
    """Print the log level of a running service, or change it for some time.

    Example: service loglevel --set debug --seconds 60
    """
    from service.commands import inspect

    tell(lambda: inspect.level(url, None if level is None else (level, seconds)))


@clients.command()
def load(  # noqa: PLR0917  options, not arguments
    url: Annotated[str, typer.Argument(help="The public listener.")] = "http://127.0.0.1:8000",
    http: Annotated[float, typer.Option(min=0, help="GETs a second; 0 leaves them out.")] = 50,
    path: Annotated[str, typer.Option(help="What they ask for.")] = "/api/hello",
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds.")] = 10,
    host: Annotated[str, typer.Option(help="The Host to send, where SERVICE_ALLOWED_HOSTS is set.")] = "",
    # sample begins
    members: Annotated[int, typer.Option(min=0, help="Websockets that chat; 0 leaves the chat out.")] = 50,
    writers: Annotated[int, typer.Option(min=0, help="How many of them send.")] = 10,
    rooms: Annotated[int, typer.Option(min=1, help="Over so many rooms.")] = 5,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages a second, of all writers together.")] = 50,
    # sample ends
    json: Annotated[bool, typer.Option("--json", help="Print the report for programs.")] = False,
) -> None:
    """Load a running service and tell how it answers; 1 if something that it promises was not kept.

    Posts and sends count against SERVICE_RATE_PER_ADDRESS: set it to 0 to load a service from one machine in earnest.

    Example: service load http://127.0.0.1:8000 --http 200 --duration 30
    """
    import trio

    from service.commands.load import Run, run_load
    from service.commands.load_chat import ChatPlan, ChatReport, ChatRun  # sample
    from service.commands.load_plan import Plan, Report
    from service.commands.load_report import bars, text

    run = Run(Report(Plan(url=url, http=http, path=path, duration=duration, host=host)))
    # sample begins
    plan = ChatPlan(
        url=url, http=http, path=path, duration=duration, host=host,
        members=members, writers=min(writers, members), rooms=rooms, rate=rate,
    )  # fmt: skip
    run = ChatRun(ChatReport(plan))
    # sample ends
    with bars(run.report) as show:
        trio.run(run_load, run, show)
    typer.echo(run.report.json() if json else text(run.report, colours=sys.stdout.isatty()))
    sys.exit(0 if run.report.kept else 1)


def tell(answer: Callable[[], str]) -> None:
    from service.commands.inspect import AskError

    try:
        typer.echo(answer())
    except AskError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.code)
