"""The browser page: three files that are sent as they are, under a policy that lets nothing else in."""

from importlib.resources import files

from quart import Blueprint

from service.platform.http import add_document

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


def add_page(blueprint: Blueprint) -> None:
    """Add the page at `/`, and its script and style beside it."""
    for path, name in FILES.items():
        body = (files("service.chat") / "page" / name).read_bytes()
        kind = TYPES[name.rpartition(".")[2]]
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Security-Policy": POLICY}
        add_document(blueprint, path, body, headers)
