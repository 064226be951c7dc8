"""Questions to the management listener of a running service. Over HTTP, so that a port-forward will do."""

import json
import urllib.error
import urllib.request

PATIENCE = 10  # seconds


class AskError(Exception):
    """Why there is no answer, for the person at the terminal."""


def ask(url: str, path: str, *, accept: str = "*/*", method: str = "GET", body: object = None) -> str:
    """Return the answer's text. Raises AskError."""
    if not url.startswith(("http://", "https://")):
        raise AskError(f"{url}: must start with http:// or https://")
    data = None if body is None else json.dumps(body).encode()
    headers = {"Accept": accept, "Content-Type": "application/json"}
    request = urllib.request.Request(url.rstrip("/") + path, data, headers, method=method)  # noqa: S310  checked above
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310  the same
            text: str = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise AskError(f"{url}{path} says {error.code}: {_detail(error.read())}") from error
    except OSError as error:
        raise AskError(f"{url} does not answer: {getattr(error, 'reason', error)}") from error
    return text.rstrip()


def facts(url: str) -> str:
    """Return /info as aligned lines."""
    document = json.loads(ask(url, "/info"))
    rows = [(key, value) for key, value in document.items() if not isinstance(value, dict)]
    for key, values in document.items():
        if isinstance(values, dict):
            rows += [
                (f"{key.removesuffix('s')} {name}" if key == "versions" else f"{key} {name}", value)
                for name, value in values.items()
            ]
    return "\n".join(f"{key:<22} {value}" for key, value in rows)


def change_level(url: str, level: str, seconds: float) -> str:
    return ask(url, "/loglevel", method="PUT", body={"level": level, "seconds": seconds})


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
