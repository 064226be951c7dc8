"""The chat's verbs: `chat` and `epoch`. Each imports what it needs when it runs."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service.platform.verbs import check_token_file, database_settings, fail, public_url, run_client

verbs = typer.Typer()


@verbs.command()
def chat(
    context: typer.Context,
    url: Annotated[str | None, typer.Argument(help="URL of the public listener; else where SERVICE_BIND says.")] = None,
    room: Annotated[str, typer.Option(help="Room to join: 1 to 64 of a-z, 0-9 and -.")] = "lobby",
    name: Annotated[str, typer.Option(help="Name to use without a token; nobody checks it.")] = "terminal",
    token_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File with an access token, read for each connection."),
    ] = None,
) -> None:
    """Chat from a terminal, until the end of the input. Reconnects by itself; exits 1 if a line was not stored.

    Where another service answers from the first it ends with 1 and says so.

    Example: service chat http://127.0.0.1:8000 --room lobby --name ada
    """
    from service.chat.client.chat import chat
    from service.chat.client.stranger import NoChatError
    from service.chat.parsing import parse_name, parse_room
    from service.platform.errors import Invalid

    try:
        parse_room(room), parse_name(name)
    except Invalid as error:
        fail(str(error), 2)
    check_token_file(token_file)
    try:
        unstored = run_client(partial(chat, public_url(context, url), room=room, name=name, token_file=token_file))
    except NoChatError as error:
        fail(str(error), 1)
    if unstored:
        fail(f"{unstored} lines were not stored", 1)


@verbs.command()
def epoch(context: typer.Context) -> None:
    """Begin a new epoch of the chat, after a restore or a failover that lost commits; replicas see it within seconds.

    Example: service epoch
    """
    from service.chat.epoch import epoch
    from service.platform.errors import OutcomeUnknown, Unavailable, leaves

    settings, _ = database_settings(context)
    try:
        renewed = run_client(epoch, settings)
    except* OutcomeUnknown as group:
        unknown = f"it is not known whether the epoch was renewed: {next(leaves(group))}"
        fail(f"{unknown}; run it again, a second new one does no harm", 1)
    except* Unavailable as group:
        fail(f"the epoch was not renewed: {next(leaves(group))}", 1)
    else:
        typer.echo(f"the chat's epoch is now {renewed}")
