"""The operator's listener: facts for anybody who reaches it, what could tell secrets or do harm for loopback only.

`kubectl port-forward` and `exec` are loopback. A Host that is a name is refused there too: a page in the operator's
browser could have pointed its own name at 127.0.0.1.
"""

import datetime
import functools
import importlib.metadata
import ipaddress
import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from quart import Blueprint, request

from service.database import Database
from service.errors import Forbidden
from service.lifecycle import Lifecycle
from service.settings import Settings, variable
from service.settings_words import shown

# The parts whose versions an operator asks for first.
_PARTS = ("trireme", "quart", "quart-trio", "hypercorn", "trio", "sqlalchemy", "psycopg")


def loopback_only[**P, T](view: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Refuse with 403 a peer that is not loopback, and a Host that is neither `localhost` nor an IP literal."""

    @functools.wraps(view)
    async def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        peer = request.scope.get("client") or ("",)
        if not may_inspect(str(peer[0]), request.headers.get("Host", "")):
            raise Forbidden("only for a loopback peer that asks for localhost: use kubectl port-forward or exec")
        return await view(*args, **kwargs)

    return checked


def may_inspect(peer: str, host: str) -> bool:
    """Return whether a peer's address and the Host it asks for are those of somebody on this machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    address = _address(peer)
    return address is not None and address.is_loopback and (name == "localhost" or _address(name) is not None)


def create_routes(
    settings: Settings, origins: Mapping[str, str], lifecycle: Lifecycle, database: Database
) -> Blueprint:
    routes = Blueprint("management", __name__)
    started = datetime.datetime.now(datetime.UTC)

    @routes.get("/info")
    async def info() -> dict[str, Any]:
        seen = database.condition
        return {
            "versions": {name: importlib.metadata.version(name) for name in _PARTS},
            "python": platform.python_version(),
            "started": started.isoformat(timespec="seconds"),
            "phase": str(lifecycle.phase),
            "schema": {"state": str(seen.schema or "unknown"), "revision": seen.revision, "head": seen.head},
        }

    @routes.get("/settings")
    @loopback_only
    async def effective() -> dict[str, Any]:
        return {
            variable(field): {
                "value": shown(getattr(settings, field)),
                "origin": origins.get(field, "default"),
            }
            for field in Settings.model_fields
        }

    return routes


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # ::ffff:127.0.0.1 on a socket that serves both
