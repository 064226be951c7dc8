"""Documents that never change while the process lives: sent from memory, and not again to who has them."""

from collections.abc import Mapping
from hashlib import sha256

from quart import Blueprint, Quart, Response, request

from service.platform.http.limits import unlimited
from service.platform.http.openapi.declarations import Media, replies
from service.platform.identity import anyone


def add_document(routes: Quart | Blueprint, path: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Add a route for `body`, for anyone; `headers` have its Content-Type at least."""
    # Asked for each time: nobody meets the document of another release for long.
    sent = {"Cache-Control": "no-cache", "ETag": f'"{sha256(body).hexdigest()[:20]}"'} | dict(headers)

    @anyone
    @unlimited("sent from memory")
    @replies(Media(sent["Content-Type"].partition(";")[0]))
    @replies(Media(), 304)
    async def send() -> Response:
        response = Response(body, headers=sent)
        await response.make_conditional(request)
        return response

    routes.add_url_rule(path, path.strip("/").replace(".", "_") or "index", send)
