"""The verbs that are clients of a running service; each imports what it needs when it runs."""

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_type_hints

import typer

from service.platform.verbs.program import CRASHED, WRONG, fail, program, run_client
from service.platform.verbs.where import check_sent, check_token_file, checked_url, management_url, public_url

verbs = typer.Typer()

Management = Annotated[
    str | None, typer.Argument(help="URL of the management listener; else where SERVICE_MANAGEMENT_BIND says.")
]


@verbs.command()
def info(context: typer.Context, url: Management = None) -> None:
    """Print version, phase and schema of a running service, and the versions of its dependencies.

    Example: kubectl exec deploy/NAME -- service info
    """
    from service.platform.verbs.inspect import facts

    where = management_url(context, url)
    tell(lambda: facts(where))


@verbs.command()
def tasks(
    context: typer.Context,
    url: Management = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the task tree of a running service, with cancel scopes, threads and units of work.

    Example: service tasks http://localhost:9000
    """
    from service.platform.verbs.inspect import ask, tree

    where = management_url(context, url)
    tell(lambda: ask(where, "/tasks", accept="application/json") if json else tree(where, colours=sys.stdout.isatty()))


@verbs.command()
def loglevel(
    context: typer.Context,
    url: Management = None,
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option("--set", help="New log level.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, max=86_400, help="Seconds after which the usual level returns.")
    ] = 300,
) -> None:
    """Print or change the log level of a running service. A change lasts for some time.

    Example: service loglevel --set debug --seconds 60
    """
    from service.platform.verbs import inspect

    where = management_url(context, url)
    tell(lambda: inspect.level(where, None if level is None else (level, seconds)))


@verbs.command()
def smoke(
    context: typer.Context,
    urls: Annotated[list[str], typer.Argument(help="URLs of the replicas; a host name may stand for several.")],
    replicas: Annotated[int, typer.Option(min=1, help="Number of replicas that must be found.")] = 2,
    host: Annotated[str, typer.Option(help="Host header to send, for a service with SERVICE_ALLOWED_HOSTS.")] = "",
) -> None:
    """Test running replicas. Each must answer its probes and a request; exits 1 if one does not.

    Example: service smoke http://NAME-management:8000
    """
    from service.platform.client.smoke import SmokeError, smoke
    from service.platform.errors import plain

    urls = [checked_url(url) for url in urls]
    if secure := [url for url in urls if url.startswith("https:")]:
        fail(f"{secure[0]}: must start with http://, as the replicas are asked one by one, behind what ends TLS", WRONG)
    check_sent(host=host)
    checks = [feature.smoke for feature in program(context).features if feature.smoke is not None]

    async def tell_each() -> None:
        async for line in smoke(urls, replicas=replicas, host=host, checks=checks):
            typer.echo(line)

    try:
        run_client(tell_each)
    except SmokeError as error:
        fail(plain(str(error)), CRASHED)


LOAD_HELP = """Put load on a running service and report how it answers. Exits 1 if a promise was broken.

Posts and sends count against SERVICE_RATE_PER_ADDRESS: set it to 0 to load a service from one machine in earnest.

Example: service load http://127.0.0.1:8000 --http 200 --duration 30
"""


def make_load(modules: Sequence[Any]) -> Callable[..., None]:
    """Return the verb `load` with the options of the features' load modules (see load_plan.py) behind its own."""

    def load(  # noqa: PLR0917  options, not arguments
        context: typer.Context,
        url: Annotated[
            str | None, typer.Argument(help="URL of the public listener; else where SERVICE_BIND says.")
        ] = None,
        http: Annotated[float, typer.Option(min=0, max=1e6, help="GET requests per second; 0 is none.")] = 50,
        path: Annotated[str, typer.Option(help="Path that they ask for.")] = "/openapi.json",
        duration: Annotated[float, typer.Option(min=0.1, max=86_400, help="Length of the run in seconds.")] = 10,
        host: Annotated[str, typer.Option(help="Host header to send, for a service with SERVICE_ALLOWED_HOSTS.")] = "",
        token_file: Annotated[
            Path | None,
            typer.Option(exists=True, dir_okay=False, help="File with an access token, read for each connection."),
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
        **given: Any,
    ) -> None:
        from service.platform.client.http import FAILURES
        from service.platform.client.load import find_listening, run_load
        from service.platform.client.load_http import HttpLoad
        from service.platform.client.load_plan import NothingThere, Plan, Report
        from service.platform.client.load_report import bars, text
        from service.platform.errors import leaves
        from service.platform.verbs.inspect import reason

        def give_up(why: str) -> NoReturn:
            if json:
                typer.echo(report.json())
            fail(why, CRASHED)

        check_token_file(token_file)
        check_sent(host=host, path=path)
        plan = Plan(url=public_url(context, url), duration=duration, host=host, token_file=token_file)
        of_features = [
            module.Load(plan, module.Options(**{one.name: given[one.name] for one in fields(module.Options)}))
            for module in modules
        ]
        report = Report(plan, [HttpLoad(plan, rate=http, path=path), *of_features])
        try:
            run_client(find_listening, plan)
        except FAILURES as error:
            give_up(f"{plan.url} does not answer: {reason(error)}")
        try:
            with bars(report) as show:
                run_client(run_load, report, show)
        except* NothingThere as group:
            give_up(str(next(leaves(group))))
        typer.echo(report.json() if json else text(report, colours=sys.stdout.isatty()))
        sys.exit(0 if report.kept else 1)

    load.__doc__ = LOAD_HELP
    own = [one for one in signature(load).parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    theirs = [one for module in modules for one in _options(module.Options)]
    load.__signature__ = Signature([*own, *theirs])  # type: ignore[attr-defined]  # typer reads it
    load.__annotations__ |= {one.name: one.annotation for one in theirs}
    return load


def _options(options: type[Any]) -> Iterator[Parameter]:
    hints = get_type_hints(options, include_extras=True)
    for one in fields(options):
        yield Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])


def tell(answer: Callable[[], Awaitable[str]]) -> None:
    from service.platform.verbs.inspect import AskError

    try:
        typer.echo(run_client(answer))
    except AskError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.code)
