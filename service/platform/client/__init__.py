"""Clients of a running service: they know it by its wire alone. The verbs that need no database are made of them.

What a feature needs for its own clients, and for its parts of `service load` and `service smoke`, is named here.
"""

from service.platform.client.load_plan import Bar, NothingThere, Part, Plan, counts, typical
from service.platform.client.smoke import PATIENCE, Address, SmokeError, connect
from service.platform.client.stream import open_stream
from service.platform.client.token import read_token
from service.platform.client.websocket import ClosedError, WebsocketClient

__all__ = [
    "PATIENCE",
    "Address",
    "Bar",
    "ClosedError",
    "NothingThere",
    "Part",
    "Plan",
    "SmokeError",
    "WebsocketClient",
    "connect",
    "counts",
    "open_stream",
    "read_token",
    "typical",
]
