"""The process's two addresses: bound in good time, and told once it is ready."""

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
import trio

from service.platform.lifecycle import Lifecycle
from service.platform.process.stage import Stage
from service.platform.server import listener_url
from service.platform.settings import PlatformSettings, SettingsError, variable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the process answers, once it is ready; `public` is empty in a process that only runs jobs."""

    public: str
    management: str


def check_ready_file(file: Path | None) -> None:
    """Raise SettingsError when the file could not be written once the service is ready."""
    if file is None:
        return
    if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
        raise SettingsError([f"{variable('ready_file')}: {file.parent} is no directory in which a file can be written"])
    if file.is_dir():
        raise SettingsError([f"{variable('ready_file')}: {file} is a directory; name a file"])


def take_place(settings: PlatformSettings, operators: socket.socket, stage: Stage) -> None:
    """Listen for operators, and remove what an earlier process has said of itself, as the addresses are ours now.

    Raises SettingsError.
    """
    with explained("management_bind", settings.management_bind):
        operators.listen()
    if settings.ready_file is None or stage.takes_over:
        return
    try:
        settings.ready_file.unlink(missing_ok=True)
    except OSError as error:
        words = f"{settings.ready_file} of an earlier process cannot be removed: {error.strerror}"
        raise SettingsError([f"{variable('ready_file')}: {words}"]) from error


@contextmanager
def bound(field: str, address: str, stage: Stage) -> Iterator[socket.socket]:
    """Yield a socket that has the address, and does not listen yet; raises SettingsError when it cannot be had."""
    with explained(field, address):
        listener = stage.open_listener(field, address)
    with listener:
        yield listener


@contextmanager
def explained(field: str, address: str) -> Iterator[None]:
    """Turn an error about an address into a SettingsError that names the setting."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        reason = f"cannot be used: {error.strerror if isinstance(error, OSError) else 'it is no host name'}"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            reason = "is already in use; choose another, in the environment or .env, or end what has it"
        raise SettingsError([f"{variable(field)}: {address} {reason}"]) from error


async def announce(
    settings: PlatformSettings,
    lifecycle: Lifecycle,
    operators: socket.socket,
    public: socket.socket | None = None,
    *,
    on_ready: Callable[[Urls], object],
) -> None:
    """Say where the service answers: in the log, in the file for scripts, and to whoever started it.

    Nothing is said of one that drains: that would be the last that anybody heard of it.
    """
    if lifecycle.draining:
        return
    urls = Urls("" if public is None else listener_url(public), listener_url(operators))
    told = {name: url for name, url in asdict(urls).items() if url}
    log.info("ready", **told)
    if settings.ready_file is not None:
        unfinished = trio.Path(settings.ready_file.with_name(settings.ready_file.name + ".new"))
        try:
            await unfinished.write_text(json.dumps(told))
            await unfinished.rename(settings.ready_file)  # whoever waits for the file finds all of it
        except OSError as error:
            words = f"{variable('ready_file')}: {settings.ready_file} cannot be written: {error.strerror}"
            raise SettingsError([words]) from error
    on_ready(urls)
