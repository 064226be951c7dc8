"""`/asyncapi.json`: the websocket's half of the contract, made from the frames that protocol.py declares.

In AsyncAPI's words the application is the service: it receives what clients send.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from quart import Blueprint

from service.chat.protocol import MAX_TEXT, SERVER_FRAMES, SUBPROTOCOL, Close, Join, Leave, Name, Ping, Pong, Send
from service.openapi import SparseSchema, add_document, json_schema

CLIENT_FRAMES = (Join, Send, Leave, Ping, Pong)
STRUCTURED = "One JSON object per text frame. The first frame is the service's hello; then a client joins rooms."
SIMPLE = "Without a subprotocol: a member of the room lobby. Each text frame is a message, and nothing else is said."


def add_asyncapi(blueprint: Blueprint) -> None:
    body = json.dumps(document()).encode()
    add_document(blueprint, "/asyncapi.json", body, {"Content-Type": "application/json"})


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3 document."""
    schemas: dict[str, Any] = {}
    received, sent = [_client_message(kind, schemas) for kind in CLIENT_FRAMES], []
    for kind in SERVER_FRAMES:
        sent.append(_server_message(kind, schemas))
    text = {"name": "text", "contentType": "text/plain", "payload": {"type": "string", "maxLength": MAX_TEXT}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Trireme's chat", "version": SUBPROTOCOL.rpartition(".v")[2]},
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


def _client_message(kind: type, schemas: dict[str, Any]) -> dict[str, Any]:
    payload, definitions = json_schema(kind)
    schemas |= definitions
    payload["required"] = ["type", *payload["required"]]  # its default is for our own code
    return _message(payload)


def _server_message(kind: type, schemas: dict[str, Any]) -> dict[str, Any]:
    payload, definitions = json_schema(kind, mode="serialization", generator=SparseSchema)
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
