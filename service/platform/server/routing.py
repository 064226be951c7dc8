"""What the framework works out for each request, and is mostly the same: kept, within bounds, as clients name it."""

from collections.abc import Callable
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any

from quart.routing import QuartMap
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.exceptions import BadHost, NotFound
from werkzeug.routing import MapAdapter

from service.platform.server.targets import is_ambiguous
from service.platform.settings import DEFAULT_PORTS

_NO_METHOD = "--"  # as werkzeug itself asks for a path's methods: no route has it

_is_async = lru_cache(maxsize=1024)(iscoroutinefunction)


class Routes(QuartMap):
    """Quart's, which encodes the Host by IDNA once for each Host and not for each request."""

    def bind_to_request(
        self, request: BaseRequestWebsocket, subdomain: str | None, server_name: str | None
    ) -> MapAdapter:
        if self.host_matching or subdomain is not None or server_name is not None:
            return super().bind_to_request(request, subdomain, server_name)
        return _Adapter(
            self,
            _encode_host(request.scheme, request.host),
            request.root_path,
            "",
            request.scheme,
            request.path,
            request.method,
            request.query_string.decode(),
            scope=request.scope,
        )


class _Adapter(MapAdapter):
    """werkzeug's, which takes `get` for GET and finds /api/hello by //api/hello."""

    def __init__(self, *args: Any, scope: Any) -> None:
        super().__init__(*args)
        self._ambiguous = is_ambiguous(scope.get("raw_path", b""))
        self._method_is_one = scope.get("method", "GET").isupper()

    def match(self, path_info: str | None = None, method: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if self._ambiguous:
            raise NotFound
        if method is None and not self._method_is_one:
            method = _NO_METHOD
        return super().match(path_info, method, *args, **kwargs)


@lru_cache(maxsize=256)
def _encode_host(scheme: str, host: str) -> str:
    """Return the host as URLs carry it. Raises BadHost, as werkzeug's `Map.bind` does."""
    usual = DEFAULT_PORTS.get(scheme.replace("ws", "http"))
    name, colon, port = host.lower().removesuffix(f":{usual}").partition(":")
    try:
        return f"{name.encode('idna').decode('ascii')}{colon}{port}"
    except UnicodeError as error:
        raise BadHost from error


@lru_cache(maxsize=1024)
def blueprints_of(endpoint: str) -> tuple[str, ...]:
    """Return the names of an endpoint's blueprints, the innermost first."""
    parts = endpoint.split(".")[:-1]
    return tuple(".".join(parts[:count]) for count in range(len(parts), 0, -1))


def is_async(function: Callable[..., object]) -> bool:
    try:
        return _is_async(function)
    except TypeError:  # it has no hash
        return iscoroutinefunction(function)
