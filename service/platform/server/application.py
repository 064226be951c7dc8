"""QuartTrio on our connections: the base of every app that `serve` is given."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import structlog
import trio
from quart import Response
from quart.ctx import AppContext
from quart.typing import ResponseReturnValue, ResponseTypes
from quart.wrappers import Request as QuartRequest
from quart.wrappers import Websocket as QuartWebsocket
from quart.wrappers.base import ClientDisconnectedError
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from service.platform.errors import ServiceError, leaves, note_cut
from service.platform.failures import as_failure, forget_frames
from service.platform.server.body import Request
from service.platform.server.context import Context
from service.platform.server.documents import Document, Json, header_fields, is_model
from service.platform.server.http import HttpConnection, note_left
from service.platform.server.parts import Buffer, File, Parts, Whole
from service.platform.server.routing import Route, Routes, is_async
from service.platform.server.websocket import Websocket, WebsocketConnection
from service.platform.settings import PlatformSettings

log = structlog.get_logger(__name__)

# Views make responses of Quart's own class, by its name; its bodies wait for a loop of asyncio's, which does not run.
Response.iterable_body_class = Parts
Response.data_body_class = Whole
Response.io_body_class = Buffer
Response.file_body_class = File  # type: ignore[assignment]  # as Quart-Trio has it

# Raised on purpose, as an answer to the client.
ANSWERS = (HTTPException, ServiceError)


class Application(QuartTrio):
    """QuartTrio whose bodies are bounded, whose groups of errors tell the truth (README.md, D4), and whose websockets
    close with 1011 after an error and quietly after a normal end (D5). No lifespan hooks: what lives as long as the
    process is opened in main.
    """

    asgi_http_class = HttpConnection
    asgi_websocket_class = WebsocketConnection
    json_provider_class = Json
    request_class = Request
    response_class = Response  # type: ignore[assignment]  # whose bodies are ours, above
    websocket_class = Websocket
    url_map_class = Routes
    url_rule_class = Route  # type: ignore[assignment]  # as Quart's own, to which Flask's type is not true

    def __init__(self, import_name: str, *, settings: PlatformSettings, **kwargs: Any) -> None:
        super().__init__(import_name, **kwargs)
        self.config["BODY_PATIENCE"] = settings.body_timeout
        self.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
        self.config["BODY_TIMEOUT"] = None  # ours counts only the waiting
        self.config["RESPONSE_TIMEOUT"] = None  # it would cut a stream in silence; a peer that stops reading is dropped

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:  # type: ignore[override]  # no frame more
        return self.asgi_app(scope, receive, send)

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        return func if is_async(func) else super().ensure_async(func)

    def takes(self, scope: Any) -> tuple[str, ...] | None:
        """Return the media types of bodies that the route of a request declares, beside JSON's.

        None for a method that its path has no route for, where no body is right: what is wrong is the method.
        """
        try:
            rule, _ = self.url_map.find(scope)  # type: ignore[attr-defined]  # ours
        except MethodNotAllowed:
            return None
        except HTTPException:
            return ()
        declared: tuple[str, ...] = getattr(self.view_functions[rule.endpoint], "takes", ())
        return declared

    @property
    def matches_hosts(self) -> bool:
        """Whether a route depends on the Host."""
        return self.url_map.host_matching or self.subdomain_matching or self.config["SERVER_NAME"] is not None

    def request_context(self, request: QuartRequest) -> AppContext:
        return Context(self, cast(Any, request.scope), lambda: request)

    async def handle_request(self, request: QuartRequest) -> ResponseTypes:
        return cast(ResponseTypes, await self.answer(cast(Context, self.request_context(request))))

    async def answer(
        self, request_context: Context, failed: Exception | BaseExceptionGroup | None = None
    ) -> ResponseTypes | Document:
        """Return the response to a request, whatever happens on the way; only Cancelled passes.

        With `failed` the one to an error of what it was answered with, of which nothing has been sent.
        """
        async with request_context as context:
            try:
                if failed is not None:
                    return await self.finalize_request(context, await self.handle_user_exception(context, failed))
                return await self.full_dispatch_request(context)
            except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                response = await self.handle_exception(context, _real_error(error))
                forget_frames(error)
                return response

    def place(self, context: Context) -> AbstractContextManager[None]:  # noqa: ARG002  # for whoever overrides it
        """Return what is around an answer in parts while it is sent: the view, which had its place, has returned."""
        return nullcontext()

    def note_cut(self, context: Context, error: BaseException) -> None:
        """Tell why an answer whose beginning was sent has no end; only Cancelled passes."""
        scope = context.scope
        try:
            real = _real_error(error)
        except BaseException:
            note_left(scope)
            raise
        of_ours = [leaf for leaf in leaves(real) if not isinstance(leaf, ClientDisconnectedError)]
        if not of_ours:
            note_cut(scope, "client")
        elif all(isinstance(leaf, ServiceError) for leaf in of_ours):
            known = cast(ServiceError, of_ours[0])
            note_cut(scope, known.reason, status=known.status)
        elif all(isinstance(leaf, ANSWERS) for leaf in of_ours):
            note_cut(scope, "refused")
        else:
            self.log_exception(context, cast(Any, (type(real), real, real.__traceback__)))
            note_cut(scope, ServiceError.reason, status=ServiceError.status)
        forget_frames(error)

    def refuse_unmatched(self, context: Context) -> Document | None:
        """Return the answer to a request that no route is for, ahead of the framework; None for all others.

        None as well where somebody is to be asked first: a hook, a receiver, or a handler of the error.
        """
        error = context.unmatched if context.takes_documents else None
        if error is not None and context.scope.get("raw_path") == b"*":  # OPTIONS of the server itself: RFC 9110, 9.3.7
            methods = {method for rule in self.url_map.iter_rules() for method in rule.methods or ()}
            return Document(b"", fields=[(b"allow", ", ".join(sorted(methods)).encode())])
        return None if error is None else self.refuse(context, error)

    def refuse(self, context: Context, error: BaseException) -> Document | None:  # noqa: ARG002  # for whoever overrides it
        """Return the answer to an error if it needs no response; None when its handler has to be called."""
        return None

    async def full_dispatch_request(self, ctx: AppContext) -> ResponseTypes:
        context = cast(Context, ctx)
        if not context.bare:
            return await super().full_dispatch_request(ctx)
        result: ResponseReturnValue | HTTPException | None
        try:
            result = await self.preprocess_request(ctx)
            if result is None:
                result = await self.dispatch_request(ctx)
        except (Exception, BaseExceptionGroup) as error:
            result = await self.handle_user_exception(ctx, error)
        return await self.finalize_request(ctx, result)

    async def preprocess_request(self, ctx: AppContext) -> ResponseReturnValue | None:
        return None if cast(Context, ctx).bare else await super().preprocess_request(ctx)

    async def dispatch_request(self, ctx: AppContext) -> ResponseReturnValue:
        """Call the view, whose arguments are the parts of the path."""
        context = cast(Context, ctx)
        rule = context.check_matched()
        if rule.provide_automatic_options and context.scope["method"] == "OPTIONS":  # type: ignore[attr-defined]  # Quart's rules have it
            return await self.make_default_options_response(ctx)
        view: Callable[..., Awaitable[ResponseReturnValue]] = self.ensure_async(self.view_functions[rule.endpoint])
        return await view(**context.view_args)

    async def finalize_request(
        self, ctx: AppContext, result: ResponseReturnValue | HTTPException, from_error_handler: bool = False
    ) -> ResponseTypes:
        context = cast(Context, ctx)
        if (document := context.document(result)) is not None:
            return cast(ResponseTypes, document)  # goes past everything to HttpConnection, which asked for it
        if context.is_response_unseen:
            return await self.make_response(result)
        return await super().finalize_request(ctx, result, from_error_handler)

    async def make_response(self, result: ResponseReturnValue | HTTPException) -> ResponseTypes:
        """Return the response of what a view returns, in which the body may be a model, and the headers as well."""
        parts: list[Any] = list(result) if isinstance(result, tuple) else [result]
        if parts and is_model(type(parts[0])):
            parts[0] = self.json.response(parts[0])
        if len(parts) > 1 and is_model(type(parts[-1])):
            parts[-1] = header_fields(parts[-1])
        return await super().make_response(
            cast(ResponseReturnValue, tuple(parts) if isinstance(result, tuple) else parts[0])
        )

    async def handle_websocket(self, websocket: QuartWebsocket) -> ResponseTypes | None:
        async with self.websocket_context(websocket) as context:
            try:
                return await self.full_dispatch_websocket(context)
            except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                response = await self.handle_websocket_exception(context, _real_error(error))
                forget_frames(error)
                return response
            finally:
                if websocket.routing_exception is not None:
                    forget_frames(websocket.routing_exception)

    async def handle_user_exception(
        self, ctx: AppContext, error: Exception | BaseExceptionGroup
    ) -> HTTPException | ResponseReturnValue:
        """Answer with the first error of a group, if every error in it is an answer; else the whole group is a 500."""
        if not isinstance(error, BaseExceptionGroup):
            return await super().handle_user_exception(ctx, error)
        real = [leaf for leaf in leaves(error) if not isinstance(leaf, ClientDisconnectedError)]
        if real and all(isinstance(leaf, ANSWERS) for leaf in real):
            return await self.handle_user_exception(ctx, cast(Exception, real[0]))
        raise error

    async def handle_websocket_exception(self, ctx: AppContext, error: Exception) -> ResponseTypes | None:
        if all(isinstance(leaf, ClientDisconnectedError) for leaf in leaves(error)):
            return None  # how every conversation ends
        return await super().handle_websocket_exception(ctx, error)


def _real_error(error: BaseException) -> Exception:
    """Return what is in an error besides Cancelled, or raise it when there is nothing else."""
    real = error.split(trio.Cancelled)[1] if isinstance(error, BaseExceptionGroup) else error
    failure = None if real is None else as_failure(real)
    if failure is None:
        raise error
    return failure
