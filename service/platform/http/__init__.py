"""The HTTP side of a feature: what a route may declare, and the application that its routes become part of.

Start reading at app.py; what surrounds each request is in requests.py.
"""

from service.platform.http.app import create_app, no_deadline, surround
from service.platform.http.bodies import read_json, takes
from service.platform.http.callers import caller, wait_signed_out
from service.platform.http.conversations import HEARTBEAT, Conversation, Conversations, Ending, open_conversations
from service.platform.http.events import Event, send_events
from service.platform.http.idempotency import idempotent, run_once
from service.platform.http.limits import limited, unlimited
from service.platform.http.openapi import (
    SCHEME,
    Media,
    SparseSchema,
    add_document,
    add_openapi,
    json_schema,
    replies,
    security_scheme,
)
from service.platform.http.requests import ASGI, HEALTHZ, RequestObserver, around

__all__ = [
    "ASGI",
    "HEALTHZ",
    "HEARTBEAT",
    "SCHEME",
    "Conversation",
    "Conversations",
    "Ending",
    "Event",
    "Media",
    "RequestObserver",
    "SparseSchema",
    "add_document",
    "add_openapi",
    "around",
    "caller",
    "create_app",
    "idempotent",
    "json_schema",
    "limited",
    "no_deadline",
    "open_conversations",
    "read_json",
    "replies",
    "run_once",
    "security_scheme",
    "send_events",
    "surround",
    "takes",
    "unlimited",
    "wait_signed_out",
]
