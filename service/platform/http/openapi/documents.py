"""Documents that never change while the process lives: sent from memory, and not again to who has them."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from hashlib import sha256

import trio
from quart import Blueprint, Quart, Response, request

from service.platform.errors import PreconditionFailed, cut
from service.platform.http.limits import unlimited
from service.platform.http.openapi.declarations import Media, replies
from service.platform.identity import anyone

type Make = Callable[[], Awaitable[bytes]]


def add_document(routes: Quart | Blueprint, path: str, body: bytes | Make, headers: Mapping[str, str]) -> None:
    """Add a route for `body`, for anyone; `headers` have its Content-Type at least.

    A function that makes the body is called when somebody first asks for it: no start waits for that.
    """
    document = _Document(body)

    @anyone
    @unlimited("sent from memory")
    @replies(Media(headers["Content-Type"].partition(";")[0]))
    @replies(Media(), 304)
    @replies(PreconditionFailed)
    async def send() -> Response:
        body, tag = await document.get()
        wanted = request.if_match
        if wanted and not wanted.contains_raw(tag):
            given = cut(request.headers["If-Match"])
            raise PreconditionFailed(f"If-Match: must name {tag}, which is the document's ETag, or be *, not {given!r}")
        # Asked for each time: nobody meets the document of another release for long.
        response = Response(body, headers={"Cache-Control": "no-cache", "ETag": tag} | dict(headers))
        if request.if_none_match.contains_weak(tag.strip('"')):  # werkzeug's own looks at If-Match in its place
            response.status_code = 304
            response.set_data(b"")
            del response.content_length
        return response

    routes.add_url_rule(path, path.strip("/").replace(".", "_") or "index", send)


def folders(app: Quart) -> Iterator[str]:
    """Yield a line for each blueprint with a folder of files: nothing says who may, and threads would read them."""
    told = "a static_folder is not served: send its files by `add_document(routes, path, body, headers)`"
    for name, blueprint in app.blueprints.items():
        if blueprint.has_static_folder:
            yield f"blueprint {name}: {told}"


class _Document:
    """A body and its tag; made once, however many ask for it at the same time."""

    def __init__(self, body: bytes | Make) -> None:
        self._source = body
        self._made: tuple[bytes, str] | None = None
        self._making = trio.Lock()

    async def get(self) -> tuple[bytes, str]:
        if self._made is not None:
            return self._made
        async with self._making:
            if self._made is None:
                body = self._source if isinstance(self._source, bytes) else await self._source()
                self._made = body, f'"{sha256(body).hexdigest()[:20]}"'
            return self._made
