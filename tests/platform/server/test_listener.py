"""The listening socket and the versions: what is refused at start, and what accepted connections inherit."""

import errno
import socket
from pathlib import Path

import pytest

from service.platform.listener import USER_TIMEOUT
from service.platform.server import listener_url, open_listener


def test_port_0_takes_a_free_port_and_the_url_leads_there() -> None:
    with open_listener("127.0.0.1:0") as listener:
        listener.listen()
        port = listener.getsockname()[1]

        assert listener_url(listener) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT * 1000
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 131_072


def test_a_taken_port_is_an_error() -> None:
    with open_listener("127.0.0.1:0") as listener:
        listener.listen()
        with pytest.raises(OSError, match="in use") as error:
            open_listener(f"127.0.0.1:{listener.getsockname()[1]}")

        assert error.value.errno == errno.EADDRINUSE


def test_of_two_that_were_bound_one_can_listen() -> None:
    with open_listener("127.0.0.1:0") as one, open_listener(f"127.0.0.1:{one.getsockname()[1]}") as other:
        one.listen()
        with pytest.raises(OSError, match="in use"):
            other.listen()


def test_a_port_can_be_taken_again_at_once() -> None:
    with open_listener("127.0.0.1:0") as listener:
        listener.listen()
        address = listener.getsockname()
        with socket.create_connection(address):
            listener.accept()[0].close()  # leaves a connection in TIME_WAIT
    with open_listener(f"127.0.0.1:{address[1]}"):
        pass


def test_any_address_of_ipv6_is_any_address_of_ipv4_too() -> None:
    with open_listener("[::]:0") as listener:
        listener.listen()
        port = listener.getsockname()[1]
        hosts = ["127.0.0.1"] if listener.family == socket.AF_INET else ["127.0.0.1", "::1"]
        for host in hosts:
            socket.create_connection((host, port)).close()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_ipv6_alone() -> None:
    with open_listener("[::1]:0") as listener:
        assert listener_url(listener) == f"http://[::1]:{listener.getsockname()[1]}"
