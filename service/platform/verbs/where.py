"""Where the service of this machine listens, for verbs that are its clients: of two clones each asks its own."""

from typing import TYPE_CHECKING

from service.platform.verbs.program import WRONG, fail, program

if TYPE_CHECKING:
    from pathlib import Path

    import typer


def management_url(context: "typer.Context", given: str | None) -> str:
    """Return the URL that was given, or else that of SERVICE_MANAGEMENT_BIND."""
    return checked_url(given) if given else _listens(context, "management_bind")


def public_url(context: "typer.Context", given: str | None) -> str:
    """Return the URL that was given, or else that of SERVICE_BIND."""
    return checked_url(given) if given else _listens(context, "bind")


def checked_url(given: str) -> str:
    """Return a URL as it was given, but for a password in it; one that is none ends the verb with 2."""
    from service.platform.verbs.inspect import AskError, parse, without_password

    try:
        parse(given)
    except AskError as error:
        fail(str(error), error.code)
    return without_password(given)


def check_sent(*, host: str, path: str = "/") -> None:
    """End the verb with 2 for a Host or a path that no request can hold."""
    from service.platform.verbs.inspect import SENDABLE, is_sendable

    if not is_sendable(host):
        fail(f"--host: {host!r} is no name of a host: {SENDABLE}; a name in other letters is xn--", WRONG)
    if not (path.startswith("/") and is_sendable(path)):
        fail(f"--path: {path!r} is no path from / on: {SENDABLE}; a blank is %20", WRONG)


def check_token_file(file: "Path | None") -> None:
    """End the verb with 2 where no token can be read now; later on it may come and go."""
    from service.platform.client.token import TokenFileError, read_token

    try:
        read_token(file)
    except TokenFileError as error:
        fail(str(error), WRONG)


def local_url(bind: str) -> str:
    """Return the URL under which a listener of this address is reached from here; `[::]` is IPv4 too, or that alone."""
    host, _, number = bind.rpartition(":")
    return f"http://{'127.0.0.1' if host in {'0.0.0.0', '[::]'} else host}:{number}"  # noqa: S104


def _listens(context: "typer.Context", field: str) -> str:
    """Return the URL of a listener by its own setting: others may be wrong, and are of no concern to who asks."""
    from service.platform.settings import SettingsError

    try:
        bind = str(program(context).catalogue.load_alone(field))
    except SettingsError as error:
        fail(f"{error}\nmend that, or name the URL", WRONG)
    if bind.endswith(":0"):
        fail(f"SERVICE_{field.upper()}: is {bind}, any free port, so name the URL", WRONG)
    return local_url(bind)
