"""The platform's settings, which yours extend, and which hold those of the features. How they are read is in load.py.

A setting is an opinion that an operator can have; anything else is a constant with a comment where it is used.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.platform.settings.frozen import PREFIX, FeatureSettings, Frozen, prefix_of
from service.platform.settings.types import (
    Algorithms,
    Bind,
    DatabaseURL,
    HttpsAddress,
    Issuer,
    Names,
    Networks,
    Origins,
    Scopes,
    Seconds,
)

# Descriptors that a process needs beside those of clients and of units: files, pipes, operators' connections, cancels.
SPARE_DESCRIPTORS = 100
DESCRIPTORS_OF_UNIT = 2  # its connection's, and a second of the same socket, by which it is cut
# Seconds that a drain needs on top of its settings: closing features, database and management.
DRAIN_MARGIN = 5.0


class PlatformSettings(Frozen):
    """What the platform can be told. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)
    _of_features: dict[str, FeatureSettings] = PrivateAttr(default_factory=dict)

    bind: Bind = Field(
        "127.0.0.1:8000",
        examples=["[::]:8000"],
        description="Address and port of the public listener; port 0 picks a free port.",
    )
    management_bind: Bind = Field(
        "127.0.0.1:9000",
        examples=["[::]:9000"],
        description="Address and port of the management listener, which serves probes, metrics and inspection.",
    )
    ready_file: Path | None = Field(
        None,
        examples=["/run/service/ready.json"],
        description="File that is written once the service is ready, with both URLs as JSON; for scripts"
        " that use port 0.",
    )

    database_url: DatabaseURL | None = Field(
        None,
        examples=["postgresql://name@db.example.org/app"],
        description="Address of a PostgreSQL server, version 15 or later; `service dev` starts one of its"
        " own when this is unset.",
    )
    database_direct_url: DatabaseURL | None = Field(
        None,
        examples=["postgresql://name@db.example.org/app"],
        description="Address of the same database past the pooler, for notifications and migrations; by default"
        " `SERVICE_DATABASE_URL`.",
    )
    database_pooled: bool = Field(
        False,
        description="Whether `SERVICE_DATABASE_URL` leads to PgBouncer in transaction mode; then the direct"
        " URL must be set.",
    )
    database_password_file: Path | None = Field(
        None,
        examples=["/run/secrets/password"],
        description="File with the database password, which is read for each new connection and wins over the URL's.",
    )
    migration_grant_to: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        examples=["app"],
        description="Role to which `service migrate` gives the data, where the service runs as another than the owner.",
    )
    database_connections: int = Field(
        10,
        ge=1,
        le=500,
        description="Size of the connection pool, and number of database threads; a replica holds two more"
        " connections, and those of its jobs.",
    )
    database_queue_wait: Seconds = Field(
        0.4,
        ge=0,
        le=60,
        description="Most seconds for which a unit of work may have to wait for a free connection; one that would have"
        " to wait longer, as far as can be known, is refused with 503 at once.",
    )
    database_slow_unit: Seconds = Field(
        1.0, ge=0.001, le=3600, description="Seconds after which a unit of work is logged as slow, by its name."
    )
    jobs_concurrency: int = Field(
        5,
        ge=0,
        le=500,
        description="Most jobs that this process runs at once, each on a database connection of its own; 0 runs none.",
    )
    jobs_retention: Seconds = Field(
        86_400, ge=60, le=3_650 * 86_400, description="Seconds for which a finished job is kept to be looked at."
    )

    readiness_requires_database: bool = Field(
        False, description="Whether `/readyz` fails while the database cannot be reached."
    )

    request_deadline: Seconds = Field(
        10,
        ge=0.1,
        le=3600,
        description="Most seconds until a request is answered; then it gets 504 and its query is cancelled,"
        " or 408 while its body is still awaited.",
    )
    max_requests: int = Field(200, ge=1, le=100_000, description="Most requests in flight; further ones get 503.")
    max_body_bytes: int = Field(
        1 << 20, ge=1, le=1 << 30, description="Largest request body in bytes; a larger one gets 413."
    )
    header_timeout: Seconds = Field(
        10,
        ge=0.1,
        le=600,
        description="Most seconds that a client may take to send a request's headers; then it gets 408.",
    )
    body_timeout: Seconds = Field(
        20,
        ge=0.1,
        le=3600,
        description="Most seconds that a client may take to send a request's body; then it gets 408.",
    )
    write_timeout: Seconds = Field(
        10,
        ge=0.1,
        le=600,
        description="Most seconds that a write waits for a client that does not read; then its connection is reset.",
    )
    keep_alive_timeout: Seconds = Field(
        75,
        ge=0.1,
        le=3600,
        description="Seconds after which an idle connection is closed; must be longer than the idle timeout"
        " of the proxy in front.",
    )
    websocket_max_bytes: int = Field(
        65_536,
        ge=128,
        le=1 << 24,
        description="Largest websocket message in bytes; a larger one closes the websocket with 1009.",
    )
    max_websockets: int = Field(
        10_000, ge=0, le=1_000_000, description="Most open websockets; further upgrades get 503."
    )
    max_websockets_per_address: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Most open websockets of one client address (IPv6: of one /64); 0 is no limit.",
    )
    rate_per_connection: float = Field(
        20,
        ge=0,
        le=100_000,
        description="Most messages per second on one websocket, with a burst of two seconds; 0 is no limit.",
    )
    rate_per_address: float = Field(
        100,
        ge=0,
        le=1_000_000,
        description="Most POSTs, messages and upgrades per second from one client address (IPv6: one /64),"
        " with a burst of two seconds; 0 is no limit, and turns off the rates of single routes too.",
    )

    allowed_origins: Origins = Field(
        (),
        examples=["https://example.org,https://example.com"],
        description="Origins whose pages may open websockets, send requests that change something, and read answers"
        " (CORS, without cookies); empty is the same origin only.",
    )
    allowed_hosts: Names = Field(
        (),
        examples=["example.org,www.example.org"],
        description="Host names that are served, without a port; others get 421, and empty is any.",
    )
    trusted_proxies: Networks = Field(
        (),
        examples=["10.0.0.0/8,192.0.2.1"],
        description="Addresses or networks of the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted;"
        " empty is none.",
    )

    auth_issuer: Issuer | None = Field(
        None,
        examples=["https://login.example.org/realms/main"],
        description="Identity provider whose tokens say who is asking; unset, everybody is a guest.",
    )
    auth_audience: str | None = Field(
        None,
        min_length=1,
        examples=["https://api.example.org"],
        description="Name of this service at the provider, which a token's `aud` must hold; needed with an issuer.",
    )
    auth_jwks_url: HttpsAddress | None = Field(
        None,
        examples=["https://login.example.org/keys"],
        description="URL of the provider's public keys; by default the issuer's discovery document names it.",
    )
    auth_client_id: str | None = Field(
        None,
        min_length=1,
        examples=["orders-web"],
        description="Name of this service as a client of the provider; unset, browsers cannot sign in.",
    )
    auth_client_secret: SecretStr | None = Field(
        None,
        min_length=1,
        description="Secret of that client, as a file in `SERVICE_SECRETS_DIR`; unset for a public client.",
    )
    auth_scopes: Scopes = Field(
        ("openid", "profile"),
        examples=["openid,profile,orders:read"],
        description="Scopes that a browser's sign-in asks the provider for.",
    )
    auth_session_lifetime: Seconds = Field(
        12 * 3_600, ge=60, le=30 * 86_400, description="Seconds for which a browser stays signed in."
    )
    auth_algorithms: Algorithms = Field(
        ("RS256", "ES256", "Ed25519", "EdDSA"),
        examples=["RS256,ES256"],
        description="Algorithms that a token may be signed with; only those with a public key.",
    )

    drain_delay: Seconds = Field(
        5,
        ge=0,
        le=600,
        description="Seconds after SIGTERM in which new requests are still accepted while load balancers"
        " take the replica out.",
    )
    drain_spread: Seconds = Field(
        5,
        ge=0,
        le=600,
        description="Seconds over which open websockets are closed, so that clients do not all reconnect at once.",
    )
    graceful_timeout: Seconds = Field(
        15,
        ge=0.1,
        le=3600,
        description="Most seconds that requests in flight may take at the end of a drain; not below the request"
        " deadline.",
    )

    slow_step: Seconds = Field(
        0.1,
        ge=0,
        le=60,
        description="Seconds after which code that blocks the event loop is logged with its stack; 0 is off.",
    )
    one_cpu: bool = Field(
        False,
        description="Whether the process stays on one CPU at a time: units of work take less of it where there are"
        " CPUs of its own, and far longer where neighbours want them.",
    )
    revision: str = Field(
        "unknown", examples=["4c1d2e7"], description="Commit that is running; container images set it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["json", "console"] = Field(
        "json", description="Format of log lines: `json` for machines, `console` for people."
    )

    def of[S: BaseSettings](self, kind: type[S]) -> S:
        """Return the settings of a class: yours, or a feature's. Raises LookupError for one that no feature brings."""
        for settings in (self, *self._of_features.values()):
            if isinstance(settings, kind):
                return settings
        raise LookupError(f"{kind.__name__}: no feature in service/features.py has these settings")

    def with_features(self, of_features: Mapping[str, FeatureSettings]) -> Self:
        """Return a copy that also holds the settings of features, by the features' names."""
        copy = self.model_copy()
        copy._of_features = dict(of_features)
        return copy

    def groups(self) -> Iterator[tuple[str, BaseSettings]]:
        """Yield each object of settings in here with the prefix of its variables."""
        yield PREFIX, self
        for name, settings in self._of_features.items():
            yield prefix_of(name), settings

    @property
    def drain_bound(self) -> float:
        """The most that a drain takes, in seconds; the chart derives the pod's grace from the same sum."""
        return self.drain_delay + self.drain_spread + self.graceful_timeout + DRAIN_MARGIN

    @property
    def most_descriptors(self) -> int:
        """What a full house takes: sockets of clients and of the database, and some for all else."""
        units = self.database_connections + self.jobs_concurrency
        return self.max_websockets + self.max_requests + DESCRIPTORS_OF_UNIT * units + SPARE_DESCRIPTORS

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.database_pooled and self.database_direct_url is None:
            words = f"{PREFIX}DATABASE_DIRECT_URL: must be set when {PREFIX}DATABASE_POOLED is"
            raise PydanticCustomError("together", words)
        if self.graceful_timeout < self.request_deadline:
            below = f"{self.graceful_timeout:g} is below {PREFIX}REQUEST_DEADLINE, {self.request_deadline:g}"
            words = f"{PREFIX}GRACEFUL_TIMEOUT: {below}; requests in flight would be cut"
            raise PydanticCustomError("together", words)
        if self.auth_issuer is not None and self.auth_audience is None:
            words = f"{PREFIX}AUTH_AUDIENCE: must be set when {PREFIX}AUTH_ISSUER is, or a token for another would do"
            raise PydanticCustomError("together", words)
        if self.auth_issuer is None and (self.auth_audience is not None or self.auth_jwks_url is not None):
            words = f"{PREFIX}AUTH_ISSUER: must be set when {PREFIX}AUTH_AUDIENCE or {PREFIX}AUTH_JWKS_URL is"
            raise PydanticCustomError("together", f"{words}; without it everybody is a guest")
        if self.auth_client_id is not None and self.auth_issuer is None:
            words = f"{PREFIX}AUTH_ISSUER: must be set when {PREFIX}AUTH_CLIENT_ID is; without it nobody can sign in"
            raise PydanticCustomError("together", words)
        if self.auth_client_secret is not None and self.auth_client_id is None:
            words = f"{PREFIX}AUTH_CLIENT_ID: must be set when {PREFIX}AUTH_CLIENT_SECRET is"
            raise PydanticCustomError("together", words)
        return self
