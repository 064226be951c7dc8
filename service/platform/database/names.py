"""Where the hosts of an address are: their names looked up beside the event loop, all at once, within bounds.

libpq would look them up itself, and hold the event loop until a name server has answered.
"""

import socket
from collections.abc import Iterable, Mapping

import psycopg
import trio

# A thread that asks a silent name server stays until the system gives up, for half a minute, whoever has left it. So
# many may stay for one name, out of reach of other names, and of Trio's own limiter, at which calls to others wait.
LOOK_UPS = 8

_limiters: trio.lowlevel.RunVar[dict[str, trio.CapacityLimiter]] = trio.lowlevel.RunVar("look-ups by name")


async def look_up(hosts: Iterable[str], *, within: float) -> Mapping[str, list[str] | psycopg.OperationalError]:
    """Return the addresses of each host, or why there are none; a socket in the file system is none that has any."""
    names = [host for host in dict.fromkeys(hosts) if host and not host.startswith(("/", "@"))]
    found: dict[str, list[str] | psycopg.OperationalError] = {
        name: _unknown(name, "no answer from the name server") for name in names
    }
    with trio.move_on_after(within):
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(_look_one_up, name, found)
    return found


async def _look_one_up(name: str, found: dict[str, list[str] | psycopg.OperationalError]) -> None:
    try:
        found[name] = _ask(name, socket.AI_NUMERICHOST)  # an address is one already, and takes no thread
    except OSError:
        await _ask_beside(name, found)


async def _ask_beside(name: str, found: dict[str, list[str] | psycopg.OperationalError]) -> None:
    try:
        addresses = await trio.to_thread.run_sync(_ask, name, abandon_on_cancel=True, limiter=_limiter(name))
    except OSError as error:
        found[name] = _unknown(name, str(error.strerror))
    except RuntimeError:  # of the interpreter: a limit of processes, or of memory
        found[name] = psycopg.OperationalError(f"no thread can be started to look {name} up")
    else:
        found[name] = addresses


def _ask(name: str, flags: int = 0) -> list[str]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _limiter(name: str) -> trio.CapacityLimiter:
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = {}
        _limiters.set(limiters)
    return limiters.setdefault(name, trio.CapacityLimiter(LOOK_UPS))


def _unknown(name: str, why: str) -> psycopg.OperationalError:
    """Return it in libpq's words."""
    return psycopg.OperationalError(f'could not translate host name "{name}" to address: {why}')
