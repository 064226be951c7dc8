"""Every frame that tests exchange with the service, held against the document that it gives of them."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache, lru_cache
from typing import Any

from jsonschema_rs import Draft202012Validator

from service.chat import asyncapi
from service.chat.parsing import parse
from service.chat.protocol import SUBPROTOCOL, Error
from service.platform.testing.wire import RawWebsocket
from tests.chat.wire import open_raw as open_unwatched


@asynccontextmanager
async def open_raw(
    url: str, path: str = "/ws", *, protocol: str | None = SUBPROTOCOL, **options: Any
) -> AsyncIterator[RawWebsocket]:
    """Open a websocket as tests/chat/wire.py does, whose frames are checked both ways."""
    async with open_unwatched(url, path, protocol=protocol, **options) as line:
        if protocol is not None:
            line.watch = check
        yield line


@lru_cache(maxsize=4_096)  # a message comes to hundreds of members in a storm
def check(sent: bool, text: str) -> None:
    """Raise AssertionError for a frame of the service that is not as described, with no field besides; and for one of

    a client about which the document and the service do not agree: what it describes is taken, and nothing else is.
    """
    if not sent:
        wrong = described().problems_of("send", text)
        assert not wrong, f"{wrong}: {text[:500]}"
        return
    wrong, answer = described().problems_of("receive", text), parse(text)
    if isinstance(answer, Error):
        assert wrong, f"described as right, and refused with {answer.message}: {text[:500]}"
    else:
        assert not wrong, f"{wrong}, and taken: {text[:500]}"


@cache
def described() -> "Described":
    return Described(asyncapi.document())


class Described:
    """The frames of a document, by operation and type."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._validators = {
            action: {name: self._validator(message["payload"], closed=action == "send") for name, message in messages}
            for action, messages in ((action, self._messages(action)) for action in ("receive", "send"))
        }

    def problems_of(self, action: str, text: str) -> list[str]:
        """Return what is wrong with a frame that goes the way of an operation."""
        try:
            frame = json.loads(text)
            json.dumps(frame, ensure_ascii=False).encode()  # a lone surrogate is no text
        except (ValueError, RecursionError):
            return ["no JSON"]
        kinds = self._validators[action]
        if not isinstance(frame, dict) or not isinstance(frame.get("type"), str) or frame["type"] not in kinds:
            return [f"its type is none of {sorted(kinds)}"]
        return [error.message for error in kinds[frame["type"]].iter_errors(frame)]

    def _messages(self, action: str) -> list[tuple[str, dict[str, Any]]]:
        references = [message["$ref"] for message in self._document["operations"][action]["messages"]]
        messages = self._document["channels"]["structured"]["messages"]
        return [(name, messages[name]) for name in (reference.rpartition("/")[2] for reference in references)]

    def _validator(self, payload: Mapping[str, Any], *, closed: bool) -> Draft202012Validator:
        components = self._document["components"]
        if closed:
            payload, components = close(payload), close(components)
        return Draft202012Validator({"components": components, **payload}, validate_formats=True)


def close(schema: Any) -> Any:
    """Return a schema whose objects have no other fields than the described ones."""
    if isinstance(schema, list):
        return [close(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(part) for key, part in schema.items()}
    return closed | ({"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {})
