"""The settings classes: the platform's own fields, and the base of a feature's.

A setting is an opinion that an operator can have; anything else is a constant with a comment where it is used. One
frozen object is made when the command line starts and passed down: the platform's, which yours extends, holding those
of the features. How they are read is in load.py.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import Field, PrivateAttr, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

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

PREFIX = "SERVICE_"

# Seconds that a drain needs on top of its settings: closing features, database and management.
DRAIN_MARGIN = 5.0


def prefix_of(feature: str) -> str:
    """Return what the variables of a feature's settings begin with: SERVICE_ORDERS_ for `orders`."""
    return f"{PREFIX}{feature.upper()}_"


class _Frozen(BaseSettings):
    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _words_in_any_case(cls, value: Any, info: ValidationInfo) -> Any:
        """Take `INFO` for `info` where a field may be one of some words."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if get_origin(annotation) is Literal and isinstance(value, str):
            return next((word for word in get_args(annotation) if str(word).lower() == value.lower()), value)
        return value


class FeatureSettings(_Frozen):
    """The base of a feature's settings: its fields are SERVICE_<FEATURE>_*. `settings.of(YourClass)` returns them."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment only when the loader names the prefix: the class alone does not know its feature."""
        if not getattr(env_settings, "env_prefix", ""):
            return (init_settings,)
        return init_settings, env_settings, dotenv_settings, file_secret_settings


class PlatformSettings(_Frozen):
    """What the platform can be told. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)
    _of_features: dict[str, FeatureSettings] = PrivateAttr(default_factory=dict)

    bind: Bind = Field(
        "127.0.0.1:8000", examples=["[::]:8000"], description="Where the public listener is; port 0 takes a free one."
    )
    management_bind: Bind = Field(
        "127.0.0.1:9000",
        examples=["[::]:9000"],
        description="Where the operator's listener is: probes, metrics, live inspection.",
    )
    ready_file: Path | None = Field(
        None,
        examples=["/run/service/ready.json"],
        description="Written once ready, with both URLs as JSON: for scripts that start the service on port 0.",
    )

    database_url: DatabaseURL | None = Field(
        None,
        examples=["postgresql://name@db.example.org/app"],
        description="PostgreSQL 14 or later. `service dev` starts one of its own when this is unset.",
    )
    database_direct_url: DatabaseURL | None = Field(
        None,
        examples=["postgresql://name@db.example.org/app"],
        description="The same database past the pooler, for listener and migrations. Unset: `SERVICE_DATABASE_URL`.",
    )
    database_pooled: bool = Field(
        False, description="`SERVICE_DATABASE_URL` leads to PgBouncer in transaction mode; needs the direct URL."
    )
    database_password_file: Path | None = Field(
        None,
        examples=["/run/secrets/password"],
        description="Read at each new connection, so that a password may change on disk. Wins over the URL's.",
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
        description="POSTs, sends and upgrades a second of one address, with a burst of two seconds; 0 is no limit.",
    )

    allowed_origins: Origins = Field(
        (),
        examples=["https://example.org,https://example.com"],
        description="Origins of browser pages that may open websockets and change things; empty is the same origin.",
    )
    allowed_hosts: Names = Field(
        (),
        examples=["example.org,www.example.org"],
        description="Host names served, without a port; empty is any. Else 421.",
    )
    trusted_proxies: Networks = Field(
        (),
        examples=["10.0.0.0/8,192.0.2.1"],
        description="Addresses or networks of proxies whose `X-Forwarded-*` headers are trusted; empty is none.",
    )

    auth_issuer: Issuer | None = Field(
        None,
        examples=["https://login.example.org/realms/main"],
        description="The identity provider whose tokens say who is asking; unset, everybody is a guest.",
    )
    auth_audience: str | None = Field(
        None,
        min_length=1,
        examples=["https://api.example.org"],
        description="What a token's `aud` must hold: this service's name at the provider. Needed with an issuer.",
    )
    auth_jwks_url: HttpsAddress | None = Field(
        None,
        examples=["https://login.example.org/keys"],
        description="Where the provider's public keys are; unset, the issuer's discovery document says.",
    )
    auth_client_id: str | None = Field(
        None,
        min_length=1,
        examples=["orders-web"],
        description="This service as a client of the provider: browsers can sign in. Unset, tokens alone are taken.",
    )
    auth_client_secret: SecretStr | None = Field(
        None,
        description="The client's secret, best as a file in `SERVICE_SECRETS_DIR`; unset for a public client.",
    )
    auth_scopes: Scopes = Field(
        ("openid", "profile"),
        examples=["openid,profile,orders:read"],
        description="What a browser's sign-in asks the provider for.",
    )
    auth_session_lifetime: Seconds = Field(
        12 * 3_600, ge=60, le=30 * 86_400, description="How long a browser stays signed in."
    )
    auth_algorithms: Algorithms = Field(
        ("RS256", "ES256", "Ed25519", "EdDSA"),
        examples=["RS256,ES256"],
        description="What a token may be signed with; algorithms with a public key only.",
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

    slow_step: Seconds = Field(
        0.1, ge=0, le=60, description="Code that holds the event loop longer is logged with its stack; 0 is off."
    )
    one_cpu: bool = Field(
        True,
        description="Keep the process on one CPU at a time, as threads of one interpreter take turns anyway."
        " False where threads of yours compute without its lock.",
    )
    revision: str = Field("unknown", examples=["4c1d2e7"], description="The commit that runs; images set it.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="For machines, or for people.")

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
