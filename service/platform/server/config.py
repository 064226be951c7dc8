"""What one serve call is told: Hypercorn's configuration, and with it our own state, so that none of it is global."""

import logging
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from hypercorn.config import Config, Sockets
from hypercorn.logging import Logger

from service.platform.lifecycle import Lifecycle
from service.platform.listener import BACKLOG
from service.platform.server.doorway import Doorway
from service.platform.server.idle import IdleConnections
from service.platform.server.statistics import ServerStatistics
from service.platform.server.websockets import Websockets
from service.platform.settings import PlatformSettings

if TYPE_CHECKING:
    from service.platform.server.connection import ServerConnection  # it needs this module's class at run time

log = structlog.get_logger(__name__)

MAX_HEADER_BYTES = 16_384

type Probe = Callable[[], tuple[int, bytes]]


class ServerLog(Logger):
    """Hypercorn's log, in our words. Its one error is an exception that left the app."""

    def __init__(self, config: "ServerConfig") -> None:
        super().__init__(config)
        self._statistics = config.statistics

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  # Hypercorn's signature
        self._statistics.application_errors += 1
        log.exception("application failed")

    async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Say nothing: the address is announced by main."""


class ServerConfig(Config):
    """Of one serve call. No HTTP/2, no TLS, no access log, no ping interval of Hypercorn's (README.md, A5, D8, D15)."""

    logger_class = ServerLog  # type: ignore[assignment]  # it is made with this config
    accesslog = None
    errorlog = logging.getLogger("hypercorn.error")
    include_server_header = False
    backlog = BACKLOG
    h11_max_incomplete_size = MAX_HEADER_BYTES

    def __init__(
        self,
        listener: socket.socket,
        *,
        settings: PlatformSettings,
        statistics: ServerStatistics,
        lifecycle: Lifecycle,
        websockets: Websockets,
        probes: Mapping[str, Probe],
        spare: int = 0,
    ) -> None:
        self.listener = listener
        self.doorway = Doorway(listener)
        self.settings = settings
        self.statistics = statistics
        self.lifecycle = lifecycle
        self.websockets = websockets
        self.probes = {path.encode(): probe for path, probe in probes.items()}
        self.connections: set[ServerConnection] = set()
        self.first_spare = _first_spare(spare)  # the number from which on descriptors are for others
        self.closing = False  # true from the end of the drain on: connections end as soon as nothing is asked of them
        self.websocket_max_message_size = settings.websocket_max_bytes
        self.graceful_timeout = settings.graceful_timeout
        self.keep_alive_timeout = settings.keep_alive_timeout
        self.idle = IdleConnections(settings.keep_alive_timeout)
        self._dated = (0, [(b"date", b"")])

    def create_sockets(self) -> Sockets:
        return Sockets([], [self.listener], [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Return the date, made once a second and not for each response."""
        now = int(time.time())
        if now != self._dated[0]:
            self._dated = (now, super().response_headers(protocol))
        return self._dated[1]


def _first_spare(spare: int) -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - min(spare, limit // 4)
