"""`/asyncapi.json`: the websocket's half of the contract, made from the frames that protocol.py declares.

In AsyncAPI's words the application is the service: it receives what clients send.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from quart import Blueprint

from service.chat.protocol import MAX_TEXT, SERVER_FRAMES, SUBPROTOCOL, ClientFrame, Close, Name, adapter_of
from service.platform.http import SCHEME, SparseSchema, add_document, json_schema, security_scheme

STRUCTURED = "One JSON object per text frame. The first frame is the service's hello; then a client joins rooms."
SIMPLE = "Without a subprotocol: a member of the room lobby. Each text frame is a message, and nothing else is said."


def add_asyncapi(blueprint: Blueprint, issuer: str | None) -> None:
    """Add the document; with an issuer it says that a token is needed."""

    async def make() -> bytes:
        return json.dumps(document() if issuer is None else secured(document(), issuer)).encode()

    add_document(blueprint, "/asyncapi.json", make, {"Content-Type": "application/json"})


def secured(document: dict[str, Any], issuer: str) -> dict[str, Any]:
    """Return a document whose operations are for who has signed in."""
    document["components"]["securitySchemes"] = {SCHEME: security_scheme(issuer)}
    for operation in document["operations"].values():
        operation["security"] = [{"$ref": f"#/components/securitySchemes/{SCHEME}"}]
    return document


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3 document."""
    schemas: dict[str, Any] = {}
    received = _client_messages(schemas)
    sent = [_server_message(adapter_of(kind), schemas) for kind in SERVER_FRAMES]
    text = {"name": "text", "contentType": "text/plain", "payload": {"type": "string", "maxLength": MAX_TEXT}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "The chat", "version": SUBPROTOCOL.rpartition(".v")[2]},
        "defaultContentType": "application/json",
        "channels": {
            "structured": _channel(STRUCTURED, [*received, *sent], subprotocol=SUBPROTOCOL),
            "simple": _channel(SIMPLE, [text]),
        },
        "operations": {
            "receive": _operation("receive", "structured", received),
            "send": _operation("send", "structured", sent),
            "receiveText": _operation("receive", "simple", [text]),
            "sendText": _operation("send", "simple", [text]),
        },
        "components": {"schemas": schemas},
    }


def _client_messages(schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what may come in, in the words of the one adapter that takes it; add the schemas that it refers to."""
    union, definitions = json_schema(adapter_of(ClientFrame))
    payloads = [definitions.pop(branch["$ref"].rpartition("/")[2]) for branch in union["oneOf"]]
    schemas |= definitions
    # Its default is for our own code.
    return [_message(payload | {"required": ["type", *payload["required"]]}) for payload in payloads]


def _server_message(adapter: TypeAdapter[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    payload, definitions = json_schema(adapter, mode="serialization", generator=SparseSchema)
    schemas |= definitions
    return _message(payload)


def _message(payload: dict[str, Any]) -> dict[str, Any]:
    name = payload["properties"]["type"]["const"]
    summary = {"summary": payload.pop("description")} if "description" in payload else {}
    return {"name": name, **summary, "payload": payload}


def _channel(description: str, messages: Iterable[Mapping[str, Any]], *, subprotocol: str = "") -> dict[str, Any]:
    headers = {"type": "object", "properties": {"Sec-WebSocket-Protocol": {"const": subprotocol}}}
    query = {"type": "object", "properties": {"name": json_schema(Name)[0]}}
    handshake = {"method": "GET", "query": query, **({"headers": headers} if subprotocol else {})}
    return {
        "address": "/ws",
        "description": description,
        "messages": {message["name"]: message for message in messages},
        "bindings": {"ws": handshake},
        "x-close-codes": {str(code.value): code.meaning for code in Close},
    }


def _operation(action: str, channel: str, messages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message['name']}"} for message in messages],
    }
