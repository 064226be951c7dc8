"""Questions to the management listener of a running service. Over HTTP, so that a port-forward will do."""

import json
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

import h11
import trio

from service.platform.client.http import FAILURES, Answer, HttpClient
from service.platform.client.stream import open_stream
from service.platform.errors import plain
from service.platform.name import NAME

PATIENCE = 15  # seconds; a request of a service that waits for its database has its answer after ten, mostly
NO_ANSWER, WRONG = 1, 2  # exit codes
SENDABLE = "a request holds ASCII without blanks"
_FIRST = ("version", "revision", "phase", "started", "schema", "python", "versions")
_DIM, _BOLD, _CYAN, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"
_LINE = re.compile(r"(?P<margin>[ │├└─]*)(?P<what>.*?)(?P<doing>  \[.*\])?")


class AskError(Exception):
    """Why there is no answer, for the person at the terminal; `code` is the exit code."""

    def __init__(self, message: str, code: int = NO_ANSWER) -> None:
        super().__init__(message)
        self.code = code


async def ask(url: str, path: str, *, accept: str = "*/*", method: str = "GET", body: object = None) -> str:
    """Return the answer's text. Raises AskError."""
    url, where = without_password(url), parse(url)
    headers = {"Accept": accept, "Content-Type": "application/json"}
    sent = b"" if body is None else json.dumps(body).encode()
    unknown = ""
    try:
        with trio.fail_after(PATIENCE):
            async with open_stream(url) as stream:
                unknown = "" if method == "GET" else "; whether it did what was asked is not known"
                client = HttpClient(stream, where.netloc)
                answer = await client.ask(where.path.rstrip("/") + path, method=method, headers=headers, body=sent)
    except h11.RemoteProtocolError as error:
        raise AskError(f"{url} does not speak HTTP, or hung up: {error}{unknown}") from error
    except FAILURES as error:
        raise AskError(f"{url} does not answer: {reason(error)}{unknown}") from error
    if answer.status != 200:
        raise AskError(f"{url}{path} says {answer.status}: {_detail(answer)}")
    return answer.body.decode(errors="replace").rstrip()


async def ask_json(url: str, path: str, *, method: str = "GET", body: object = None) -> dict[str, Any]:
    """Return the answer's document. Raises AskError, also when it is none of ours."""
    text = await ask(url, path, accept="application/json", method=method, body=body)
    with ours(url + path):
        return dict(json.loads(text))


@contextmanager
def ours(where: str) -> Iterator[None]:
    """Raise AskError for an answer in which something is not what this service's listener says."""
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AskError(f"{where} answers something else: is that the management listener?") from error


async def facts(url: str) -> str:
    """Return /info as aligned lines, what is asked for first at the top."""
    document = await ask_json(url, "/info")
    with ours(url + "/info"):
        document["phase"]
    rows = []
    for key in sorted(document, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST)):
        value = document[key]
        if isinstance(value, dict):
            prefix = "" if key == "versions" else f"{key} "
            rows += [(prefix + name, part) for name, part in value.items() if name != NAME]
        else:
            rows.append((key, value))
    return plain("\n".join(f"{name:<18} {value}" for name, value in rows))


async def tree(url: str, *, colours: bool) -> str:
    """Return /tasks; with colours the tasks stand out, and what they work for."""
    text = plain(await ask(url, "/tasks", accept="text/plain"))
    return "\n".join(map(paint, text.splitlines())) if colours else text


async def level(url: str, change: tuple[str, float] | None = None) -> str:
    """Return what is logged, after a change to a level for so many seconds."""
    body = None if change is None else {"level": change[0], "seconds": change[1]}
    document = await ask_json(url, "/loglevel", method="GET" if body is None else "PUT", body=body)
    with ours(url + "/loglevel"):
        if document.get("seconds_left") is None:
            return f"{document['level']}, as usual"
        return f"{document['level']} for {document['seconds_left']:.0f} s more, then {document['usual']} again"


def paint(line: str) -> str:
    """Return a line of the tree with its places dim, its tasks bold, and what they work for in colour."""
    found = _LINE.fullmatch(line)
    if found is None:
        return line
    place = found["what"].startswith(("at ", "("))
    what = f"{_DIM if place else _BOLD}{found['what']}{_RESET}" if found["what"] else ""
    doing = f"{_CYAN}{found['doing']}{_RESET}" if found["doing"] else ""
    return f"{_DIM}{found['margin']}{_RESET}{what}{doing}" if found["margin"] else what + doing


def without_password(url: str) -> str:
    """Return a URL without the user and the password before its host: these are neither sent nor shown."""
    return re.sub(r"^(\w+://)?[^/?#]*@", r"\1", url)


def is_sendable(text: str) -> bool:
    """Return whether the first line or a field of a request can hold a text (RFC 9112, 3.2)."""
    return all("!" <= character <= "~" for character in text)


def parse(url: str) -> SplitResult:
    """Return the parts of a service's URL. Raises AskError, without a password that stands in it."""
    url = without_password(url)
    if not url.startswith(("http://", "https://")):
        raise AskError(f"{url}: must start with http:// or https://", WRONG)
    if not is_sendable(url):
        raise AskError(f"{url}: is not an address: {SENDABLE}; a blank is %20, a name in other letters xn--", WRONG)
    try:
        where = urlsplit(url)
        where.port  # noqa: B018  raises for what is no port
        (where.hostname or "").encode("idna")
    except ValueError as error:
        raise AskError(f"{url}: is not an address: {error}", WRONG) from error
    if not where.hostname:
        raise AskError(f"{url}: is not an address: it names no host", WRONG)
    return where


def _detail(answer: Answer) -> str:
    try:
        detail = str(json.loads(answer.body)["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        detail = answer.body[:200].decode(errors="replace")
    if answer.status == 404 and not detail.startswith("there is no "):  # not a thing is missing, but the page
        return "no such page; the management listener is wanted, such as http://127.0.0.1:9000"
    return plain(detail)


def reason(error: BaseException) -> str:
    """Return why there was no answer: the root of it, and of several addresses the first one's."""
    if isinstance(error, trio.TooSlowError):
        return str(error) or f"nothing came within {PATIENCE} s"
    while (inner := error.__cause__) is not None:
        error = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else inner
    if isinstance(error, OSError) and (error.errno or 0) > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno or 0)
    return str(error) or "the connection was lost"
