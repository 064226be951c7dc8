"""The framework's part: blueprints, error replies, the deadline. What surrounds it is in requests.py and server/."""

from collections.abc import Callable, Iterable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import structlog
import trio
from quart import Blueprint, Response, has_request_context, request, websocket
from quart.ctx import AppContext
from quart.typing import ResponseReturnValue, ResponseTypes
from quart_schema import RequestSchemaValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import RoutingException, Rule, WebsocketMismatch

from service.platform.declarations import UndeclaredError
from service.platform.errors import DeadlineExceeded, Reply, ServiceError, cut, make_reply, note_reason, reply_to
from service.platform.http.bodies import TURNS, JsonRequest, closed_to_forms
from service.platform.http.callers import CALLERS
from service.platform.http.limits import Limiter, limit_of, without_limit
from service.platform.http.openapi import PathParts, doubling, explain, folders, read_lists, undefined, with_form
from service.platform.http.origins import share
from service.platform.http.requests import ASGI, HEALTHZ, RequestObserver, around
from service.platform.http.turns import Turns
from service.platform.identity import (
    NOBODY,
    SIGNED_IN,
    SIGNED_OUT,
    STAY,
    TICKETS,
    Identity,
    May,
    Stay,
    declared,
    split_tickets,
    undeclared,
)
from service.platform.lifecycle import Lifecycle
from service.platform.server import (
    Application,
    Context,
    Document,
    RateLimits,
    Request,
    ServerStatistics,
    Websocket,
    forwarded,
    guard,
)
from service.platform.settings import PlatformSettings
from service.platform.telemetry.tracing import Tracing

log = structlog.get_logger(__name__)

NO_UPGRADE = "a websocket is opened here, by an upgrade; a proxy in front has to hand on Upgrade and Connection"
NO_WEBSOCKET = "no websocket is opened here"
NOTHING = "nothing is served at this path"


def no_deadline[F: Callable[..., object]](view: F) -> F:
    """Mark a route whose handler may take longer than the request deadline; it ends at the drain.

    A body that a handler returns as a stream is sent when it has returned, and has no deadline in any case.
    """
    view.no_deadline = True  # type: ignore[attr-defined]  # a function takes attributes
    return view


def create_app(
    blueprints: Iterable[Blueprint],
    settings: PlatformSettings,
    identity: Identity = NOBODY,
    limits: RateLimits | None = None,
) -> Application:
    """Return the application that serves `blueprints`, to whom they declare and as much as they declare.

    Raises UndeclaredError when a route does not say who may, or how it is limited, or takes a form where it must not,
    or a body that may be hours of work, or is annotated with what is not there; and for a folder of files.
    """
    limits = RateLimits(settings.rate_per_address) if limits is None else limits
    app = _App(__name__, settings=settings, identity=identity, limits=limits, static_folder=None)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    if lines := [*folders(app)]:  # whose routes are Quart's own
        raise UndeclaredError("\n".join(lines))
    views = [(_name(rule), app.view_functions[rule.endpoint]) for rule in app.url_map.iter_rules()]
    checks = (undeclared, without_limit, with_form, closed_to_forms, doubling, undefined)
    if lines := [line for check in checks for line in check(views)]:
        raise UndeclaredError("\n".join(lines))
    app.config |= {"QUART_SCHEMA_CONVERT_CASING": False, "QUART_SCHEMA_CONVERSION_PREFERENCE": "pydantic"}
    app.register_error_handler(ServiceError, reply_to_service_error)
    app.register_error_handler(RequestSchemaValidationError, reply_to_refused_schema)
    app.register_error_handler(HTTPException, reply_to_http_exception)
    app.register_error_handler(500, reply_to_crash)
    return app


def surround(
    app: Application,
    settings: PlatformSettings,
    *,
    lifecycle: Lifecycle,
    statistics: ServerStatistics,
    limits: RateLimits,
    observe: RequestObserver = lambda *_: None,
    tracing: Tracing | None = None,
) -> ASGI:
    """Return `app` with what stands before the framework: who the client is, the id and the log line, who gets in."""
    guarded = guard(
        app,
        settings=settings,
        lifecycle=lifecycle,
        statistics=statistics,
        limits=limits,
        any_host={HEALTHZ},  # a monitor asks by address, as for the probes
        takes=app.takes,
    )
    shared = share(guarded, settings.allowed_origins)
    return forwarded(around(shared, observe=observe, seldom=(HEALTHZ,), tracing=tracing), settings.trusted_proxies)


class _App(Application):
    request_class = JsonRequest

    def __init__(
        self, name: str, *, settings: PlatformSettings, identity: Identity, limits: RateLimits, static_folder: None
    ) -> None:
        super().__init__(name, settings=settings, static_folder=static_folder)
        self._addresses, self._by_rate = limits, settings.rate_per_address > 0
        self._limiters: dict[str, Limiter | None] = {}
        self._may: dict[str, May] = {}
        self.extensions[CALLERS] = self._gate = identity.gate
        self.extensions[TURNS] = Turns()
        self._statistics = identity.statistics
        self._request_deadline = settings.request_deadline
        self._parts = PathParts()
        self._handlers: dict[tuple[object, ...], object] = {}  # of errors, by their kind and the names of blueprints

    def register_error_handler(self, code_or_exception: Any, f: Any) -> None:
        super().register_error_handler(code_or_exception, f)
        self._handlers.clear()

    def add_url_rule(  # type: ignore[override]  # its own two superclasses differ in this
        self, rule: str, endpoint: str | None = None, view_func: Any = None, **options: Any
    ) -> None:
        super().add_url_rule(rule, endpoint, view_func, **options)
        if view_func is not None:
            self._parts.declare(rule, endpoint or view_func.__name__, view_func)

    async def preprocess_request(self, ctx: AppContext) -> ResponseReturnValue | None:
        context = cast(Context, ctx)  # ahead of a feature's own hooks
        limiter = self._limit(context.rule, context.scope)
        if limiter is not None and limiter.body:
            cast(Request, context.request).bound_body(limiter.body)
        await self._let_in(context.rule, context.scope)
        return await super().preprocess_request(ctx)

    async def full_dispatch_websocket(self, ctx: AppContext) -> ResponseTypes | None:  # type: ignore[override]  # as Quart has it
        stay = cast(dict[str, Any], ctx.websocket.scope)[STAY] = Stay(cast(Websocket, ctx.websocket).see_off)
        try:
            return await super().full_dispatch_websocket(ctx)
        finally:
            stay.leave()
            if stay.over:
                self._statistics.websockets_ended[stay.reason] += 1

    async def preprocess_websocket(self, ctx: AppContext) -> ResponseReturnValue | None:
        scope = cast(dict[str, Any], ctx.websocket.scope)
        offered = ctx.websocket.requested_subprotocols
        offered[:], scope[TICKETS] = split_tickets(offered)  # no handler is to see them, or to choose one
        self._limit(ctx.websocket.url_rule, scope)
        await self._let_in(ctx.websocket.url_rule, scope)
        return await super().preprocess_websocket(ctx)

    def _limit(self, rule: Rule | None, scope: MutableMapping[str, Any]) -> Limiter | None:
        """Return what limits a route, which an address may have asked too often: then it raises RateLimited."""
        if rule is None:
            return None
        scope["route"] = rule.rule  # for the log line and the metrics
        if scope.get("method") == "OPTIONS" and rule.provide_automatic_options:  # type: ignore[attr-defined]  # as in dispatch_request
            return None  # no view is called: a browser that asks ahead of each request would halve the route's rate
        if (limiter := self._limiter(rule.endpoint)) is not None:
            limiter.enter(scope)
        return limiter

    async def _let_in(self, rule: Rule | None, scope: MutableMapping[str, Any]) -> None:
        """Raise Unauthenticated or Forbidden, unless whoever asks may use the route."""
        if rule is not None and self._gate is not None:
            may = self._may.get(rule.endpoint)
            if may is None:
                found = declared(self.view_functions[rule.endpoint])
                may = self._may[rule.endpoint] = found or SIGNED_IN  # added past the check at start: not open
            if may.signed_in:
                may.check(await self._gate.identify(scope))

    def _limiter(self, endpoint: str) -> Limiter | None:
        """Return what limits a route, None for one that says why nothing does."""
        if endpoint not in self._limiters:
            limit = limit_of(self.view_functions[endpoint])
            if limit is None or limit.why_none:
                self._limiters[endpoint] = None
            else:
                self._limiters[endpoint] = Limiter(limit, self._addresses, by_rate=self._by_rate)
        return self._limiters[endpoint]

    async def dispatch_request(self, ctx: AppContext) -> ResponseReturnValue:
        context = cast(Context, ctx)
        rule = context.check_matched()
        self._parts.hold(rule, context.view_args)
        if context.scope["query_string"]:
            read_lists(self.view_functions[rule.endpoint])
        if (limiter := self._limiter(rule.endpoint)) is None:
            return await self._dispatch(ctx, rule)
        with limiter.places:
            return await self._dispatch(ctx, rule)

    def place(self, context: Context) -> AbstractContextManager[None]:
        return self._places(context.rule)

    def _places(self, rule: Rule | None) -> AbstractContextManager[None]:
        limiter = None if rule is None else self._limiter(rule.endpoint)
        return nullcontext() if limiter is None else limiter.places

    async def _dispatch(self, ctx: AppContext, rule: Rule) -> ResponseReturnValue:
        if getattr(self.view_functions[rule.endpoint], "no_deadline", False):
            return await super().dispatch_request(ctx)
        # move_on_after does the same, and checks a number that the settings have checked
        with trio.CancelScope(deadline=trio.current_time() + self._request_deadline) as scope:
            return await super().dispatch_request(ctx)
        cast(JsonRequest, ctx.request).refuse_late(scope.deadline)
        raise DeadlineExceeded(f"the request took longer than {self._request_deadline:g} seconds")

    async def handle_user_exception(
        self, ctx: AppContext, error: Exception | BaseExceptionGroup
    ) -> HTTPException | ResponseReturnValue:
        if isinstance(error, ServiceError):
            note_reason(ctx.scope if isinstance(ctx, Context) else ctx.websocket.scope, error)
        if isinstance(ctx, Context) and ctx.takes_documents and (document := self.refuse(ctx, error)) is not None:
            return cast(ResponseReturnValue, document)
        return await super().handle_user_exception(ctx, error)

    def refuse(self, context: Context, error: BaseException) -> Document | None:
        """Return the answer that the handlers below make, without a response: most are refusals under load.

        None for an error that is handled elsewhere, such as by a feature's own handler.
        """
        if not isinstance(error, Exception):
            return None
        handler = self.handler_of(error, context.blueprints)
        scope = context.scope
        asked = {"instance": scope["path"], "request_id": str(scope.get("request_id", ""))}
        reply = None
        if isinstance(error, ServiceError) and handler is reply_to_service_error:
            reply = reply_to(error, **asked)
        elif isinstance(error, HTTPException) and handler is reply_to_http_exception:
            reply = _reply_to_http(error, asked, method=scope["method"])
        if reply is None or self.debug:
            return None
        fields = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        return Document(reply.body, reply.status, fields)

    def handler_of(self, error: Exception, blueprints: list[str]) -> object:
        """Return who handles an error, who is looked for once for each kind: most are refused by the same few."""
        key = (type(error), *blueprints)
        if key not in self._handlers:
            self._handlers[key] = self._find_error_handler(error, blueprints)
        return self._handlers[key]

    def log_exception(self, ctx: AppContext, exception_info: Any) -> None:
        """Log what no handler took, once; the framework's own line would show the path, which clients write."""
        asked = ctx.request if ctx.has_request else ctx.websocket
        note_reason(asked.scope, ServiceError)
        route = asked.url_rule.rule if asked.url_rule else ""
        log.error("unhandled error", route=route, exc_info=exception_info)

    async def dispatch_websocket(self, ctx: AppContext) -> ResponseReturnValue | None:
        if (rule := ctx.websocket.url_rule) is not None:
            self._parts.hold(rule, ctx.websocket.view_args)
        stay: Stay = cast(dict[str, Any], ctx.websocket.scope)[STAY]
        with self._places(rule):
            if self._gate is None:  # nobody is signed in, and so nobody's stay ends
                return await super().dispatch_websocket(ctx)
            with stay.scope:
                return await super().dispatch_websocket(ctx)
        await trio.lowlevel.cancel_shielded_checkpoint()  # many end together: others come between the parts of an end
        await websocket.close(SIGNED_OUT, stay.reason)
        return None


def _name(rule: Rule) -> str:
    """Return a route as its feature's author knows it: `GET /api/orders (orders.list)`."""
    methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    return f"{'websocket' if rule.websocket else ' '.join(methods)} {rule.rule} ({rule.endpoint})"


# The handlers are async because Quart sends a plain function to a thread.
async def reply_to_service_error(error: ServiceError) -> Response:
    return _response(reply_to(error, **_asked()))


async def reply_to_refused_schema(error: RequestSchemaValidationError) -> Response:
    explained = explain(error)
    note_reason((request if has_request_context() else websocket).scope, explained)
    return await reply_to_service_error(explained)


async def reply_to_http_exception(error: HTTPException) -> ResponseReturnValue:
    method = request.method if has_request_context() else ""  # a websocket has none to choose
    reply = _reply_to_http(error, _asked(), method=method)
    return error.get_response() if reply is None else _response(reply)


async def reply_to_crash(_: HTTPException) -> Response:
    """Answer for an error of ours, which has been logged; the client gets the id to ask about, and nothing else."""
    told = ServiceError("an error of ours; it has been logged under this request_id")
    return await reply_to_service_error(told)


def _reply_to_http(error: HTTPException, asked: dict[str, str], *, method: str) -> Reply | None:
    """Return the reply to an error of the framework; None when it has a response of its own, such as a redirect."""
    if error.code is None or error.response is not None or isinstance(error, RoutingException):
        return None
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    return make_reply(error.code, _detail(error, method), headers, **asked)


def _detail(error: HTTPException, method: str) -> str:
    """Return what is told of an error of the framework: in our words, where it is not a feature that raised it."""
    match error:
        case WebsocketMismatch():
            return NO_UPGRADE if method else NO_WEBSOCKET
        case MethodNotAllowed(valid_methods=methods) if methods:
            return f"the method must be one of {', '.join(sorted(methods))}, not {cut(method)!r}"
        case NotFound(description=NotFound.description):
            return NOTHING
    return error.description or ""


def _asked() -> dict[str, str]:
    asked = request if has_request_context() else websocket
    return {"instance": asked.path, "request_id": str(asked.scope.get("request_id", ""))}


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers)
