"""The browser page: three files that are sent as they are, under a policy that lets nothing else in."""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from quart import Blueprint, Response, request

# Its own script, style and socket; no inline code, and no string is ever parsed as HTML.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",  # the icon and an ornament
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
FILES = {"/": "index.html", "/chat.js": "chat.js", "/chat.css": "chat.css"}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file in memory, and the headers it is sent with."""

    body: bytes
    headers: dict[str, str]


def add_page(blueprint: Blueprint) -> None:
    """Add the page at `/`, and its script and style beside it."""
    for path, name in FILES.items():
        _add(blueprint, path, load(name))


def load(name: str) -> Asset:
    body = (files("service.chat") / "page" / name).read_bytes()
    headers = {
        "Content-Type": f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8",
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",  # asked for each time: a page never meets the script of another release for long
        "ETag": f'"{sha256(body).hexdigest()[:20]}"',
    }
    return Asset(body, headers)


def _add(blueprint: Blueprint, path: str, asset: Asset) -> None:
    async def send() -> Response:
        response = Response(asset.body, headers=asset.headers)
        await response.make_conditional(request)
        return response

    blueprint.add_url_rule(path, asset.headers["ETag"].strip('"'), send)
