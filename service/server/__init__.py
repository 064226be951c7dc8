"""Hypercorn's Trio worker, made safe. README.md lists each trap with its mend; start reading at worker.py."""

from service.server.application import Application
from service.server.config import Probe
from service.server.forwarded import forwarded
from service.server.frames import Frame, encode_frame
from service.server.guard import guard
from service.server.listener import listener_url, open_listener
from service.server.outbox import TooSlowError
from service.server.rates import RateLimits, TokenBucket
from service.server.statistics import Statistics
from service.server.versions import WrongVersionsError, check_versions
from service.server.websocket import FrameOutbox, Websocket, websocket
from service.server.websocket_stream import EXTENSION as WEBSOCKET
from service.server.websockets import Websockets
from service.server.worker import serve

__all__ = [
    "WEBSOCKET",
    "Application",
    "Frame",
    "FrameOutbox",
    "Probe",
    "RateLimits",
    "Statistics",
    "TokenBucket",
    "TooSlowError",
    "Websocket",
    "Websockets",
    "WrongVersionsError",
    "check_versions",
    "encode_frame",
    "forwarded",
    "guard",
    "listener_url",
    "open_listener",
    "serve",
    "websocket",
]
