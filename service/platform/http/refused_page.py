"""What a person reads whose sign-in was refused: a browser comes to its two routes by itself, with no page around it.

The words are the problem's own. Nothing here sends the browser on: a provider that refuses would be asked without an
end.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, cast

from quart import Blueprint, Response, current_app, request
from quart.typing import ResponseReturnValue
from quart_schema import RequestSchemaValidationError

from service.platform.errors import PROBLEM_JSON, Problem, ServiceError
from service.platform.http.app import reply_to_crash, reply_to_refused_schema, reply_to_service_error
from service.platform.name import TITLE

_USUAL = (reply_to_crash, reply_to_refused_schema, reply_to_service_error)

_STYLE = (
    "body{margin:0 auto;max-width:34rem;padding:12vh 1.25rem 2rem;font:1rem/1.6 system-ui,sans-serif;"
    "overflow-wrap:anywhere}"
    "h1{margin:0 0 1rem;font-size:1.5rem;line-height:1.25}"
    "#why::first-letter{text-transform:uppercase}"
    "nav a{display:inline-block;margin-right:1.5rem;padding:.5rem 0}"
    "footer{margin-top:2rem;font-size:.875rem;opacity:.75}"
)
PAGE = "text/html; charset=utf-8"
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

# Returns where the browser of a request signs in again, None where nobody can.
type Again = Callable[[], str | None]


def show_refusals(routes: Blueprint, again_at: Mapping[str, Again]) -> None:
    """Let what is refused at some paths of `routes` be a page for whoever prefers one; elsewhere all is as usual."""

    async def show(error: Exception) -> ResponseReturnValue:
        handler = cast(Any, current_app).handler_of(error, [])  # a feature may have one for the whole service
        answer: ResponseReturnValue = await current_app.ensure_async(handler)(error)
        again = again_at.get(request.url_rule.rule) if request.url_rule is not None else None
        if again is None or handler not in _USUAL or not isinstance(answer, Response):
            return answer
        answer.headers["Vary"] = "Accept"
        if _prefers_page():
            problem: Problem = await answer.get_json()
            answer.set_data(make_page(problem, retry_after=answer.headers.get("Retry-After"), again=again()))
            answer.headers["Content-Type"] = PAGE
            answer.headers["Content-Security-Policy"] = POLICY
        return answer

    for kind in (ServiceError, RequestSchemaValidationError, 500):
        routes.register_error_handler(kind, show)


def _prefers_page() -> bool:
    """Whether HTML is asked for ahead of JSON, as a browser does that goes to an address; `*/*` prefers nothing."""
    accepted = request.accept_mimetypes
    return accepted.quality("text/html") > max(map(accepted.quality, ("application/json", PROBLEM_JSON)))


def make_page(problem: Problem, *, retry_after: str | None, again: str | None) -> str:
    """Return a problem as a page with the ways on from there, of which `again` leads to the provider."""
    from html import escape  # here, as a start does without it

    lines = [f'<p id="why">{escape(problem["detail"])}</p>']
    if retry_after is not None:
        lines.append(f"<p>Try again in {retry_after} second{'' if retry_after == '1' else 's'}.</p>")
    links = [("Sign in again", again), ("Go to the front page", "/")]
    lines.append("<nav>")
    lines += [f'<a href="{escape(to)}">{words}</a>' for words, to in links if to is not None]
    lines.append("</nav>")
    if known := problem.get("request_id"):
        lines.append(f"<footer>If you ask for help, give this request id: <code>{escape(known)}</code></footer>")
    return _document(escape(TITLE), "\n".join(lines))


def _document(title: str, told: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>The sign-in did not work - {title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>The sign-in did not work</h1>
{told}
</main>
</body>
</html>
"""
