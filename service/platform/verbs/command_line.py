"""From the words of the command line to a verb: the platform's, then each feature's.

A verb imports what it needs when it runs, and a feature's verbs are imported only when the word is none of the
platform's, so that the short verbs start fast.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from service.platform.name import NAME, TITLE, version
from service.platform.verbs import jobs, local, remote
from service.platform.verbs.program import MakeProgram


def command_line(program: MakeProgram, words: Sequence[str]) -> typer.Typer:
    """Return the verbs that these words may name. Raises ValueError when a feature's verb is named like another."""
    first = next((word for word in words if not word.startswith("-")), "")
    line = typer.Typer(
        help=f"{TITLE}: a service on QuartTrio, Hypercorn's Trio worker and PostgreSQL.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    line.callback()(_begin)
    line.add_typer(local.verbs)
    line.add_typer(remote.verbs)
    line.add_typer(jobs.verbs, name="jobs")
    if first == "load":
        from service.platform.client.load import feature_loads

        line.command("load")(remote.make_load(feature_loads(program().features)))
    else:
        line.command("load", help=remote.LOAD_HELP)(_nothing)
    known = names(line)
    if first not in known:
        for feature in program().features:
            _add(line, feature.verbs, known)
    return line


def names(line: typer.Typer) -> set[str]:
    """Return the names of the verbs in a typer app and in those that were added to it."""
    own = {command.name or command.callback.__name__ for command in line.registered_commands if command.callback}
    groups = [(group.name, group.typer_instance) for group in line.registered_groups]
    return own.union(*({name} if isinstance(name, str) else names(one) for name, one in groups if one))


def _add(line: typer.Typer, module: str | None, known: set[str]) -> None:
    if module is None:
        return
    verbs: typer.Typer = import_module(module).verbs
    if twice := sorted(names(verbs) & known):
        raise ValueError(f"{module}: `service {twice[0]}` is there already; give the verb another name")
    known |= names(verbs)
    line.add_typer(verbs)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {version()}")
        raise typer.Exit


def _begin(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the verbs together."""


def _nothing() -> None:
    """Stand where a feature's verb would be."""
