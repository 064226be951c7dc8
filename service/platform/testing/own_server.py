"""A PostgreSQL server that a test owns: it may be stopped, killed, frozen and started again at the same address."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

import psycopg

from service.platform.database import Embedded, open_embedded


class OwnServer:
    """Listens on a Unix socket and on a TCP port of 127.0.0.1, both of which stay over restarts."""

    def __init__(self, data: Path, bindir: Path) -> None:
        self.data = data
        self.bindir = bindir
        self.port = free_port()
        # What is committed must survive an immediate stop.
        self.settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), "synchronous_commit": "on"}
        self._pg_hba = (data / "pg_hba.conf").read_text()
        self._embedded: Embedded | None = None
        self._scope = ExitStack()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.data}&port={self.port}"

    @property
    def tcp_url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        assert self._embedded is not None
        return self._embedded.pid

    def start(self) -> None:
        context = open_embedded(self.data, durable=False, settings=self.settings, bindir=self.bindir)
        self._embedded = self._scope.enter_context(context)

    def stop(self, how: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it, and return when it is gone."""
        if how == "immediate" and self._embedded is not None:
            os.kill(self.pid, signal.SIGQUIT)
        self._embedded = None
        self._scope.close()

    def restart(self, how: Literal["fast", "immediate"] = "fast") -> None:
        self.stop(how)
        self.start()

    def become_standby(self) -> None:
        """Come back as a server that follows another and takes no writes, until it is promoted."""
        self.stop()
        (self.data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """Make a standby the primary, while its sessions go on."""
        with psycopg.connect(host=str(self.data), port=self.port, user="postgres", autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def reset(self) -> None:
        """Make it as it was at first, whatever a test did to it."""
        self.stop("immediate")
        (self.data / "standby.signal").unlink(missing_ok=True)
        (self.data / "pg_hba.conf").write_text(self._pg_hba)
        self.start()
        with psycopg.connect(host=str(self.data), port=self.port, user="postgres", autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
            connection.execute("DROP ROLE IF EXISTS app")

    def close(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.data)


def free_port() -> int:
    [port] = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Return ports at which nobody listens, also a while later and while a server that had one is stopped.

    The kernel gives them to nobody: a port that it gave, and that is not bound, is soon that of another process.
    """
    with ExitStack() as stack:
        return [stack.enter_context(_listen()).getsockname()[1] for _ in range(count)]


def _listen() -> socket.socket:
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except FileNotFoundError:
        first, last = 49_152, 65_535  # RFC 6335's, where the kernel is not Linux
    others = [*range(20_000, first), *range(last + 1, 1 << 16)]
    while others:
        with suppress(OSError):  # somebody listens
            return socket.create_server(("127.0.0.1", secrets.choice(others)))
    return socket.create_server(("127.0.0.1", 0))  # where the kernel may give any


def make_certificate(directory: Path) -> None:
    """Write cert.pem and key.pem for localhost and 127.0.0.1, by openssl."""
    command = ["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    (directory / "key.pem").chmod(0o600)
