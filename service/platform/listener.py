"""The listening socket: what is set on it here, every accepted connection inherits."""

import contextlib
import errno
import socket
import sys

# As many may wait for the event loop to accept them; the kernel caps it at net.core.somaxconn.
BACKLOG = 1024
# A peer that is gone without a word is noticed after 5 + 15 s at the latest, whether or not anything is sent to it.
KEEPALIVE_IDLE = 5
KEEPALIVE_INTERVAL = 5
USER_TIMEOUT = 15
# The kernel takes this much beyond what is on its way; the rest waits in the outbox, where it is bounded and seen.
NOT_SENT_LOW_WATER = 131_072


def open_listener(bind: str) -> socket.socket:
    """Return a socket bound to `host:port` or `[ipv6]:port`, which listens once it is served; port 0 takes a free one.

    `[::]` is IPv4 too, and on a machine without IPv6 it is IPv4 alone. Raises OSError: EADDRINUSE for a taken port.
    """
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _bind(family, host, int(port))
    except OSError as error:
        if host != "::" or error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise
        return _bind(socket.AF_INET, "0.0.0.0", int(port))  # noqa: S104  # what [::] means where there is no IPv6


def listener_url(listener: socket.socket) -> str:
    """Return the base URL under which a client on this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        _bound_silence(listener)
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
        listener.bind(address)
        listener.setblocking(False)
        stack.pop_all()
        return listener


def _bound_silence(listener: socket.socket) -> None:
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER)
