"""Every environment variable: type, default, range, reason. The only module that reads the environment.

A setting is an opinion that an operator can have; anything else is a constant with a comment where it is used.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "SERVICE_"
# The variables that say where settings come from, and so are not settings themselves.
SECRETS_DIR = PREFIX + "SECRETS_DIR"

# What the drain needs on top of its settings: closing features, database and listeners (DESIGN of the drain).
DRAIN_MARGIN = 5.0


def _bind(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise PydanticCustomError("bind", "must be host:port or [ipv6]:port, with a port from 0 to 65535")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise PydanticCustomError("bind", "must write an IPv6 address in brackets: [::1]:8000")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    try:
        url = make_url(value.get_secret_value())
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() not in {"postgresql", "postgres"}:
        raise PydanticCustomError("url", "must look like postgresql://user:password@host:5432/name")
    driver_url = url.set(drivername="postgresql+psycopg")
    return SecretStr(driver_url.render_as_string(hide_password=False))


def _origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#]+", value):
        raise PydanticCustomError("origin", "must hold origins such as https://example.org, without a path")
    return value.lower()


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise PydanticCustomError("network", "must hold addresses or networks such as 10.0.0.0/8") from None


def _split(value: Any) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


Seconds = float
Bind = Annotated[str, AfterValidator(_bind)]
DatabaseURL = Annotated[SecretStr, AfterValidator(_database_url)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """One frozen object, made in `__main__` and passed down. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    bind: Bind = Field("127.0.0.1:8000", description="Where the public listener is; port 0 takes a free one.")
    management_bind: Bind = Field(
        "127.0.0.1:9000", description="Where the operator's listener is: probes, metrics, live inspection."
    )
    ready_file: Path | None = Field(
        None, description="Written once ready, with both URLs as JSON: for scripts that start the service on port 0."
    )

    database_url: DatabaseURL | None = Field(
        None, description="PostgreSQL 14 or later. `service dev` starts one of its own when this is unset."
    )
    database_direct_url: DatabaseURL | None = Field(
        None,
        description="The same database past the pooler, for the listener and migrations. Unset: `SERVICE_DATABASE_URL`.",
    )
    database_pooled: bool = Field(
        False, description="`SERVICE_DATABASE_URL` leads to PgBouncer in transaction mode; needs the direct URL."
    )
    database_password_file: Path | None = Field(
        None, description="Read at each new connection, so that a password may change on disk. Wins over the URL's."
    )
    database_connections: int = Field(
        10, ge=1, le=500, description="Pooled connections, and as many threads; a replica holds two more."
    )
    database_queue_wait: Seconds = Field(
        0.4, ge=0, le=60, description="How long a unit may wait for a connection before it is refused with 503."
    )
    database_slow_unit: Seconds = Field(
        1.0, ge=0.001, le=3600, description="A unit of work that takes longer is logged, by name."
    )
    readiness_requires_database: bool = Field(
        False, description="Whether a database outage alone takes the replica out of rotation."
    )

    request_deadline: Seconds = Field(
        10, ge=0.1, le=3600, description="A request that takes longer is answered 504 and its query cancelled."
    )
    max_requests: int = Field(200, ge=1, le=100_000, description="Requests in flight; beyond it 503 at once.")
    max_body_bytes: int = Field(1 << 20, ge=1, le=1 << 30, description="A larger request body is refused with 413.")
    header_timeout: Seconds = Field(
        10, ge=0.1, le=600, description="How long a client may take over a request's headers; then 408."
    )
    body_timeout: Seconds = Field(
        20, ge=0.1, le=3600, description="How long a client may take over a request's body; then 408."
    )
    write_timeout: Seconds = Field(
        10,
        ge=0.1,
        le=600,
        description="How long one write may wait for a client that does not read; then it is let go.",
    )
    websocket_max_bytes: int = Field(65_536, ge=128, le=1 << 24, description="A larger message closes with 1009.")
    max_websockets: int = Field(
        10_000, ge=0, le=1_000_000, description="Open websockets; beyond it 503 at the upgrade."
    )
    max_websockets_per_address: int = Field(
        0, ge=0, le=1_000_000, description="The same for one client address; 0 is no limit."
    )
    rate_per_connection: float = Field(
        20, ge=0, le=100_000, description="Sends a second on one websocket, with a burst of two seconds; 0 is no limit."
    )
    rate_per_address: float = Field(
        100,
        ge=0,
        le=1_000_000,
        description="POSTs, sends and upgrades a second of one client address, with a burst of two seconds; 0 is no limit.",
    )

    allowed_origins: Origins = Field(
        (), description="Origins of browser pages that may open websockets and change things; empty is the same origin."
    )
    allowed_hosts: Names = Field((), description="Host names served, without a port; empty is any. Else 421.")
    trusted_proxies: Networks = Field(
        (),
        description="Addresses or networks of proxies whose `X-Forwarded-For` and `-Proto` are believed; empty is none.",
    )

    drain_delay: Seconds = Field(
        5, ge=0, le=600, description="After SIGTERM, how long everything is still accepted while routers take notice."
    )
    drain_spread: Seconds = Field(
        5,
        ge=0,
        le=600,
        description="Over how long open websockets are told to reconnect, so that they do not all at once.",
    )
    graceful_timeout: Seconds = Field(
        15, ge=0.1, le=3600, description="How long requests in flight may take to end; not below the request deadline."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="For machines, or for people.")

    @property
    def drain_bound(self) -> float:
        """The most that a drain takes, in seconds; the chart derives the pod's grace from the same sum."""
        return self.drain_delay + self.drain_spread + self.graceful_timeout + DRAIN_MARGIN

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.database_pooled and self.database_direct_url is None:
            raise PydanticCustomError(
                "together", f"{PREFIX}DATABASE_DIRECT_URL: must be set when {PREFIX}DATABASE_POOLED is"
            )
        if self.graceful_timeout < self.request_deadline:
            raise PydanticCustomError(
                "together",
                f"{PREFIX}GRACEFUL_TIMEOUT: {self.graceful_timeout:g} is below "
                f"{PREFIX}REQUEST_DEADLINE, {self.request_deadline:g}; requests in flight would be cut",
            )
        return self


class SettingsError(Exception):
    """The environment holds wrong or misspelt settings; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
