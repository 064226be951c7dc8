"""Questions to the management listener of a running service. Over HTTP, so that a port-forward will do."""

import http.client
import json
import re
import urllib.error
import urllib.request
from typing import Any

PATIENCE = 10  # seconds
NO_ANSWER, WRONG = 1, 2  # exit codes
_FIRST = ("version", "revision", "phase", "started", "schema", "python", "versions")
_DIM, _BOLD, _CYAN, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"
_LINE = re.compile(r"(?P<margin>[ │├└─]*)(?P<what>.*?)(?P<doing>  \[.*\])?")


class AskError(Exception):
    """Why there is no answer, for the person at the terminal; `code` is the exit code."""

    def __init__(self, message: str, code: int = NO_ANSWER) -> None:
        super().__init__(message)
        self.code = code


def ask(url: str, path: str, *, accept: str = "*/*", method: str = "GET", body: object = None) -> str:
    """Return the answer's text. Raises AskError."""
    if not url.startswith(("http://", "https://")):
        raise AskError(f"{url}: must start with http:// or https://", WRONG)
    data = None if body is None else json.dumps(body).encode()
    headers = {"Accept": accept, "Content-Type": "application/json"}
    try:
        request = urllib.request.Request(url.rstrip("/") + path, data, headers, method=method)  # noqa: S310  see above
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310  the same
            text: str = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise AskError(f"{url}{path} says {error.code}: {_detail(error.code, error.read())}") from error
    except OSError as error:
        raise AskError(f"{url} does not answer: {_reason(error)}") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise AskError(f"{url}: is not an address: {error}", WRONG) from error
    except http.client.HTTPException as error:
        raise AskError(f"{url} does not speak HTTP: {error!r}") from error
    return text.rstrip()


def ask_json(url: str, path: str, *, method: str = "GET", body: object = None) -> dict[str, Any]:
    """Return the answer's document. Raises AskError, also when it is none of ours."""
    text = ask(url, path, accept="application/json", method=method, body=body)
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise AskError(f"{url}{path} answers something else: is that the management listener?") from error


def facts(url: str) -> str:
    """Return /info as aligned lines, what is asked for first at the top."""
    document = ask_json(url, "/info")
    rows = []
    for key in sorted(document, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST)):
        value = document[key]
        if isinstance(value, dict):
            prefix = "" if key == "versions" else f"{key} "
            rows += [(prefix + name, part) for name, part in value.items() if name != "trireme"]
        else:
            rows.append((key, value))
    return "\n".join(f"{name:<18} {value}" for name, value in rows)


def tree(url: str, *, colours: bool) -> str:
    """Return /tasks; with colours the tasks stand out, and what they work for."""
    text = ask(url, "/tasks", accept="text/plain")
    return "\n".join(map(paint, text.splitlines())) if colours else text


def level(url: str, change: tuple[str, float] | None = None) -> str:
    """Return what is logged, after a change to a level for so many seconds."""
    body = None if change is None else {"level": change[0], "seconds": change[1]}
    document = ask_json(url, "/loglevel", method="GET" if body is None else "PUT", body=body)
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


def _detail(status: int, body: bytes) -> str:
    if status == 404:
        return "no such page; the management listener is wanted, such as http://127.0.0.1:9000"
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", error)
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
