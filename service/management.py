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
        peer = (request.scope.get("client") or ("",))[0]
        host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if not (_is_address(peer, loopback=True) and (host == "localhost" or _is_address(host.strip("[]")))):
            raise Forbidden("only for a loopback peer that asks for localhost: use kubectl port-forward or exec")
        return await view(*args, **kwargs)

    return checked


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


def _is_address(text: str, *, loopback: bool = False) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address  # ::ffff:127.0.0.1 on a socket that serves both
    return mapped.is_loopback or not loopback
