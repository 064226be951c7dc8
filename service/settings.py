"""Every environment variable: type, default, range, reason. The only module that reads the environment.

A setting is an opinion that an operator can have; anything else is a constant with a comment where it is used.
"""

import os
from pathlib import Path
from typing import Literal, Self

from dotenv import dotenv_values
from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings_types import Bind, DatabaseURL, Names, Networks, Origins, Seconds
from service.settings_words import nearest, sentence

PREFIX = "SERVICE_"
ENV_FILE = ".env"
SECRETS_DIR = PREFIX + "SECRETS_DIR"  # says where settings come from, and so is not one itself

TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"  # OpenTelemetry's names are its own; this one turns tracing on

# Seconds that a drain needs on top of its settings: closing features, database and management.
DRAIN_MARGIN = 5.0


class Settings(BaseSettings):
    """One frozen object, made in `__main__` and passed down. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

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
        description="Addresses or networks of proxies whose `X-Forwarded-*` headers are believed; empty is none.",
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

    chat_retention: Seconds = Field(  # sample begins
        30 * 86_400, ge=60, le=3_650 * 86_400, description="How long the chat keeps a message."
    )  # sample ends

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
        return self


class SettingsError(Exception):
    """The environment holds wrong or misspelt settings; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_settings() -> tuple[Settings, dict[str, str]]:
    """Return the settings, and for each field where its value came from.

    The first of these that holds a value wins: the environment, `.env`, the files in `SERVICE_SECRETS_DIR`.
    Raises SettingsError with every problem at once: wrong values, and names that look like a misspelt setting.
    """
    directory = os.environ.get(SECRETS_DIR) or None
    if directory and not Path(directory).is_dir():
        raise SettingsError([f"{SECRETS_DIR}: {directory!r} is not a directory"])
    given = _given(directory)
    problems = [f"{name}: no such setting; did you mean {near}?" for name in given if (near := _misspelt(name))]
    try:
        settings = Settings(_env_file=ENV_FILE, _secrets_dir=directory)
    except ValidationError as error:
        raise SettingsError(problems + [_problem(detail) for detail in error.errors()]) from None
    if problems:
        raise SettingsError(problems)
    return settings, {field: given.get(variable(field), "default") for field in Settings.model_fields}


def traces_wanted() -> bool:
    """Return whether OpenTelemetry's variables ask for traces; its SDK reads the others itself."""
    return bool(os.environ.get(TRACES)) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def unknown_names() -> list[str]:
    """Return the `SERVICE_*` names that are no setting and resemble none: worth a warning, no more."""
    names = _given(os.environ.get(SECRETS_DIR) or None)
    return [name for name in names if name not in _variables() and not _misspelt(name)]


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def _variables() -> list[str]:
    return [variable(field) for field in Settings.model_fields]


def _misspelt(name: str) -> str | None:
    return None if name in _variables() else nearest(name, _variables())


def _problem(detail: ErrorDetails) -> str:
    if not detail["loc"]:
        return detail["msg"]  # settings that do not fit together name themselves
    field = str(detail["loc"][0])
    return sentence(variable(field), Settings.model_fields[field], detail)


def _given(directory: str | None) -> dict[str, str]:
    """Return every `SERVICE_*` name that has a value, upper-case, with the source that wins."""
    sources = {
        f"file in {SECRETS_DIR}": [path.name for path in Path(directory).iterdir()] if directory else [],
        ENV_FILE: [name for name, value in dotenv_values(ENV_FILE).items() if value],
        "environment": [name for name, value in os.environ.items() if value and name.upper() != SECRETS_DIR],
    }
    given = ((name.upper(), source) for source, names in sources.items() for name in names)
    return {name: source for name, source in given if name.startswith(PREFIX)}
