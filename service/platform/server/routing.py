"""What the framework works out for each request, and is mostly the same: kept, within bounds, as clients name it."""

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from inspect import iscoroutinefunction
from math import isfinite
from typing import Any, Self

from quart.routing import QuartMap, QuartRule
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.exceptions import BadHost, MethodNotAllowed, NotFound
from werkzeug.routing import (
    BaseConverter,
    FloatConverter,
    IntegerConverter,
    Map,
    MapAdapter,
    Rule,
    RuleFactory,
    ValidationError,
)

from service.platform.server.targets import is_ambiguous
from service.platform.settings import DEFAULT_PORTS

_NO_METHOD = "--"  # as werkzeug itself asks for a path's methods: no route has it
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # others are made up without end

_ANY_LENGTH = -1
_PART = re.compile(r"<(?:([^\W\d]\w*)(?:\([^<>]*\))?:)?[^\W\d]\w*>")  # a rule's, and the name of its converter

_is_async = lru_cache(maxsize=1024)(iscoroutinefunction)


class Whole(IntegerConverter):
    """werkzeug's, of which a digit of any script is one."""

    regex = r"[0-9]+"


class Number(FloatConverter):
    """werkzeug's, which wants a point in each: 1 is a number as well, and so is 1e-05, as some clients write it."""

    regex = r"[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
    weight = Whole.weight + 1  # of two routes a whole number goes to the one that is for those

    def to_python(self, value: str) -> Any:
        number = super().to_python(value)
        if not isfinite(number):
            raise ValidationError
        return number


class Route(QuartRule):
    """Quart's, which compiles what builds its URLs when one is built: for most routes none is."""

    def bind(self, map: Map, rebind: bool = False) -> None:  # noqa: A002  # as werkzeug has it
        if self.merge_slashes is None:
            self.merge_slashes = True  # as werkzeug's maps say of a rule; ours says of a path what is below
        super().bind(map, rebind)

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = cache(partial(super()._compile_builder, append_unknown))

        def build(rule: Rule, **parts: Any) -> tuple[str, str]:
            return compiled()(rule, **parts)

        return build


class Routes(QuartMap):
    """Quart's, which encodes the Host by IDNA once for each Host and not for each request.

    What a route's path without parts in it leads to is kept, by the bytes that were asked for: for each route what its
    methods find, and what the others are refused with. A path that can be no route's is not looked for.
    """

    default_converters = Map.default_converters | {"int": Whole, "float": Number}  # type: ignore[assignment]  # no ImmutableDict; each map has a copy

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._known: dict[tuple[str, bytes], Rule] = {}
        self._refused: dict[tuple[str, bytes], Iterable[str]] = {}  # the methods that are allowed
        self._paths: _Paths | None = None
        # A path with an empty segment is nobody's here: werkzeug need not search again for what it would be without.
        super().__init__(*args, **{"merge_slashes": False} | kwargs)

    def add(self, rulefactory: RuleFactory) -> None:
        self._known.clear()
        self._refused.clear()
        self._paths = None
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
        if (allowed := self._refused.get((method, raw_path))) is not None:
            raise MethodNotAllowed(allowed)
        paths = self._paths = self._paths or _Paths.of(self.iter_rules(), self.converters)
        if not paths.may_be(scope["path"]):
            raise NotFound
        path, query = "/" + scope["path"].lstrip("/"), scope["query_string"].decode()
        root = scope.get("root_path", "")
        adapter = _Adapter(self, host, root, "", scope["scheme"], path, method, query, scope=scope)
        try:
            rule, parts = adapter.match(return_rule=True)
        except MethodNotAllowed as error:
            if method in _METHODS and raw_path in paths.whole:
                self._refused[method, raw_path] = error.valid_methods or ()
            raise
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


@dataclass(frozen=True, slots=True)
class _Paths:
    """What the paths of all routes are like, told without werkzeug's search: most that are nobody's look like none."""

    fixed: frozenset[str]  # those without parts, and without a slash at the end, which may be one too many or too few
    whole: frozenset[bytes]  # those without parts, as they are asked for
    of_length: dict[int, tuple[str, ...]]  # of the others, up to the segment that has the first part, by their slashes
    of_any_length: tuple[str, ...]  # of those that have a part with slashes in it

    @classmethod
    def of(cls, rules: Iterable[Rule], converters: Mapping[str, type[BaseConverter]]) -> Self:
        paths = {re.sub("/{2,}", "/", rule.rule) for rule in rules}  # as werkzeug reads it
        fixed = {path for path in paths if "<" not in path}
        beginnings: dict[int, set[str]] = {}
        for path in paths - fixed:
            names = [name or "default" for name in _PART.findall(path)]
            is_fixed = len(names) == path.count("<") and all(converters[name].part_isolating for name in names)
            length = path.removesuffix("/").count("/") if is_fixed else _ANY_LENGTH
            beginnings.setdefault(length, set()).add(path.partition("<")[0].rpartition("/")[0])
        of_any_length = tuple(beginnings.pop(_ANY_LENGTH, ()))
        return cls(
            fixed=frozenset(path.removesuffix("/") for path in fixed),
            whole=frozenset(path.encode() for path in fixed),
            of_length={length: (*found, *of_any_length) for length, found in beginnings.items()},
            of_any_length=of_any_length,
        )

    def may_be(self, path: str) -> bool:
        """Whether there may be a route for this path; false only when there is none."""
        path = path.removesuffix("/")
        return path in self.fixed or path.startswith(self.of_length.get(path.count("/"), self.of_any_length))


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
        try:
            return super().match(path_info, method, *args, **kwargs)
        except MethodNotAllowed as error:
            error.valid_methods = sorted(error.valid_methods or ())  # it is a set's, in another order in each process
            raise


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
