"""How the framework answers one HTTP request: one task, one write where the body is at hand."""

from typing import cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Response
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection

from service.platform.server.body import Request
from service.platform.server.http_stream import EXTENSION


class HttpConnection(TrioASGIHTTPConnection):
    """Quart's, without its nursery of two tasks: our server itself cancels a request whose client is gone."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if EXTENSION not in self.scope["extensions"]:  # some other server: a test client of the framework's
            await super().__call__(receive, send)
            return
        request = cast(Request, self._create_request_from_scope(send))
        request.body.pull_from(receive, patience=self.app.config["BODY_PATIENCE"])
        response = await self.app.handle_request(request)
        await self._send_response(send, response)

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if not isinstance(response, Response) or not isinstance(response.response, DataBody):
            await super()._send_response(send, response)
            return
        headers = encode_headers(response.headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        body = response.response
        await send({"type": "http.response.body", "body": body.data[body.begin : body.end], "more_body": False})
