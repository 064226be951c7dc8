"""Hypercorn's Trio worker, made safe. README.md lists each trap with its mend; start reading at worker.py."""

from wsproto.frame_protocol import CloseReason

from service.platform.listener import listener_url, open_listener
from service.platform.server.address import client_of, host_of, parse_address
from service.platform.server.application import Application
from service.platform.server.body import Request
from service.platform.server.config import MAX_HEADER_BYTES, Probe
from service.platform.server.context import Context
from service.platform.server.documents import Document, Json, is_model
from service.platform.server.entry import SAFE_METHODS, UNASKED, UNASKED_TYPES, Headers, refusal
from service.platform.server.forwarded import forwarded
from service.platform.server.frames import Frame, encode_frame
from service.platform.server.guard import guard
from service.platform.server.outbox import TooSlowError
from service.platform.server.rates import RateLimits, TokenBucket
from service.platform.server.responses import ALWAYS
from service.platform.server.seams import SEAMS, TRIED
from service.platform.server.statistics import FULL_HOUSE, NO_DESCRIPTORS, ServerStatistics
from service.platform.server.websocket import FrameOutbox, Websocket, websocket
from service.platform.server.websocket_stream import EXTENSION as WEBSOCKET
from service.platform.server.websockets import Websockets
from service.platform.server.worker import serve

__all__ = [
    "ALWAYS",
    "FULL_HOUSE",
    "MAX_HEADER_BYTES",
    "NO_DESCRIPTORS",
    "SAFE_METHODS",
    "SEAMS",
    "TRIED",
    "UNASKED",
    "UNASKED_TYPES",
    "WEBSOCKET",
    "Application",
    "CloseReason",
    "Context",
    "Document",
    "Frame",
    "FrameOutbox",
    "Headers",
    "Json",
    "Probe",
    "RateLimits",
    "Request",
    "ServerStatistics",
    "TokenBucket",
    "TooSlowError",
    "Websocket",
    "Websockets",
    "client_of",
    "encode_frame",
    "forwarded",
    "guard",
    "host_of",
    "is_model",
    "listener_url",
    "open_listener",
    "parse_address",
    "refusal",
    "serve",
    "websocket",
]
