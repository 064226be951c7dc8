"""How the framework answers one HTTP request: one task, one write where the body is at hand."""

from typing import TYPE_CHECKING, Any, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Response
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection

from service.platform.server.body import Request
from service.platform.server.context import Context
from service.platform.server.documents import Document
from service.platform.server.http_stream import EXTENSION

if TYPE_CHECKING:
    from service.platform.server.application import Application  # it is given this class

type Failure = Exception | BaseExceptionGroup


class HttpConnection(TrioASGIHTTPConnection):
    """Quart's, without its nursery of two tasks: our server itself cancels a request whose client is gone."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if EXTENSION not in self.scope["extensions"]:  # some other server: a test client of the framework's
            await super().__call__(receive, send)
            return
        app = cast("Application", self.app)

        def make() -> Request:
            request = cast(Request, self._create_request_from_scope(send))
            request.body.pull_from(receive, patience=app.config["BODY_PATIENCE"])
            return request

        context = Context(app, cast(Any, self.scope), make, documents=True)
        response = app.refuse_unmatched(context) or await app.answer(context)
        if isinstance(response, Document):
            await _send_whole(send, response.status, response.headers, response.body)
        elif not isinstance(response, Response) or isinstance(response.response, DataBody):
            await self._send_response(send, response)
        elif (failed := await _send_parts(send, response)) is not None:
            answer = await app.answer(Context(app, cast(Any, self.scope), make), failed)
            await self._send_response(send, cast(ResponseTypes, answer))  # no document is taken here

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if not isinstance(response, Response) or not isinstance(response.response, DataBody):
            await super()._send_response(send, response)
            return
        body = response.response
        data = body.data[body.begin : body.end]
        await _send_whole(send, response.status_code, encode_headers(response.headers), data)


async def _send_parts(send: ASGISendCallable, response: Response) -> Failure | None:
    """Send a body as it comes, and nothing of it if it fails before its first part: then return the error."""
    async with response.response as body:
        parts = aiter(body)
        try:
            first = await anext(parts, None)
        except (Exception, BaseExceptionGroup) as error:
            return error
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": encode_headers(response.headers),
            }
        )
        if first is not None:
            await _send_part(send, first)
        async for part in parts:
            await _send_part(send, part)
        await _send_part(send, b"", more=False)
    return None


async def _send_part(send: ASGISendCallable, part: str | bytes, *, more: bool = True) -> None:
    body = part.encode() if isinstance(part, str) else part
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _send_whole(send: ASGISendCallable, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
