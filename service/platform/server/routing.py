"""What the framework works out for each request, and is mostly the same: kept, within bounds, as clients name it."""

from collections.abc import Callable, MutableMapping
from functools import cache, lru_cache, partial
from inspect import iscoroutinefunction
from typing import Any

from quart.routing import QuartMap, QuartRule
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.exceptions import BadHost, NotFound
from werkzeug.routing import MapAdapter, Rule, RuleFactory

from service.platform.server.targets import is_ambiguous
from service.platform.settings import DEFAULT_PORTS

_NO_METHOD = "--"  # as werkzeug itself asks for a path's methods: no route has it

_is_async = lru_cache(maxsize=1024)(iscoroutinefunction)


class Route(QuartRule):
    """Quart's, which compiles what builds its URLs when one is built: for most routes none is."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = cache(partial(super()._compile_builder, append_unknown))

        def build(rule: Rule, **parts: Any) -> tuple[str, str]:
            return compiled()(rule, **parts)

        return build


class Routes(QuartMap):
    """Quart's, which encodes the Host by IDNA once for each Host and not for each request.

    What a path without parts in it leads to is kept, by the bytes that were asked for: as many as there are routes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._known: dict[tuple[str, bytes], Rule] = {}
        super().__init__(*args, **kwargs)

    def add(self, rulefactory: RuleFactory) -> None:
        self._known.clear()
        super().add(rulefactory)

    def find(self, scope: MutableMapping[str, Any]) -> tuple[Rule, dict[str, Any]]:
        """Return the route of a request by any Host, and the parts of its path.

        Raises NotFound, MethodNotAllowed, BadHost, RequestRedirect.
        """
        method, raw_path = scope["method"], scope.get("raw_path", b"")
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin1")
        host = _encode_host(scope["scheme"], host)
        known = self._known.get((method, raw_path))
        if known is not None:
            return known, {}
        path, query = "/" + scope["path"].lstrip("/"), scope["query_string"].decode()
        root = scope.get("root_path", "")
        adapter = _Adapter(self, host, root, "", scope["scheme"], path, method, query, scope=scope)
        rule, parts = adapter.match(return_rule=True)
        if not rule.arguments and rule.rule.encode() == raw_path:
            self._known[method, raw_path] = rule
        return rule, dict(parts)

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
