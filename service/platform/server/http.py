"""How the framework answers one HTTP request: one task, one write where the body is at hand."""

from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from hypercorn.utils import suppress_body
from quart import Response
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection

from service.platform.errors import note_cut
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
        elif (failed := await self._send_if_right(send, response, context)) is not None:
            answer = await app.answer(Context(app, cast(Any, self.scope), make), failed)
            await self._send_response(send, cast(ResponseTypes, answer))  # no document is taken here

    async def _send_if_right(self, send: ASGISendCallable, response: ResponseTypes, context: Context) -> Failure | None:
        """Send a response, and nothing of it if it cannot be sent as it says: then return the error."""
        if isinstance(response, Response) and not isinstance(response.response, DataBody):
            return await self._send_parts(send, response, context)
        if isinstance(response, Response) and not suppress_body(self.scope["method"], response.status_code):
            body = cast(DataBody, response.response)
            told, length = response.content_length, len(body.data[body.begin : body.end])
            if told not in {None, length}:
                return ValueError(f"Content-Length: must be that of the body, which has {length} bytes, not {told}")
        await self._send_response(send, response)
        return None

    async def _send_parts(self, send: ASGISendCallable, response: Response, context: Context) -> Failure | None:
        """Send a body as it comes, and nothing of it if it fails before its first part: then return the error.

        One that fails behind that is left without an end, so that the connection is closed. Of one that is not sent, as
        for a HEAD, no more is made: it may have no end.
        """
        app, has_begun = cast("Application", self.app), False
        try:
            with app.place(context):
                async with response.response as body:
                    parts = aiter(body)
                    first = await anext(parts, None)
                    has_begun = True
                    await _send_start(send, response)
                    if first is not None and not suppress_body(self.scope["method"], response.status_code):
                        await _send_part(send, first)
                        async for part in parts:
                            await _send_part(send, part)
                await _send_part(send, b"", more=False)  # it may have ended early for what its end raises
        except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
            if has_begun:
                note_left(context.scope)
            raise
        except BaseException as error:
            if has_begun:
                app.note_cut(context, error)
            elif isinstance(error, Exception | BaseExceptionGroup):
                return error
            else:
                raise
        return None

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if not isinstance(response, Response) or not isinstance(response.response, DataBody):
            await super()._send_response(send, response)
            return
        body = response.response
        data = body.data[body.begin : body.end]
        await _send_whole(send, response.status_code, encode_headers(response.headers), data)


def note_left(scope: Any) -> None:
    """Let the line of a request say who left it before its answer had ended: nobody was to go on with it."""
    stream = scope["extensions"].get(EXTENSION)
    note_cut(scope, "client" if stream is not None and stream.closed else "leaving")


async def _send_start(send: ASGISendCallable, response: Response) -> None:
    headers = encode_headers(response.headers)
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})


async def _send_part(send: ASGISendCallable, part: str | bytes, *, more: bool = True) -> None:
    body = part.encode() if isinstance(part, str) else part
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _send_whole(send: ASGISendCallable, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
