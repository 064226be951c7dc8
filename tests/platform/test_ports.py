"""Ports of servers that a test stops and starts: they are nobody else's meanwhile."""

import socket
from pathlib import Path

import pytest

from service.platform.testing.own_server import free_port, free_ports

GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")  # what the kernel gives to whoever wants any port


@pytest.mark.skipif(not GIVEN.exists(), reason="asks Linux")
def test_a_free_port_is_given_to_nobody_else_until_it_is_used() -> None:
    first, last = map(int, GIVEN.read_text().split())
    if first <= 20_000:
        pytest.skip(f"this machine gives all ports from {first} on to whoever wants any")

    assert not [port for port in free_ports(50) if first <= port <= last]


def test_free_ports_differ_and_nobody_listens_there() -> None:
    ports = free_ports(50)

    assert len(set(ports)) == 50
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        assert taken.getsockname()[1] not in free_ports(50)
