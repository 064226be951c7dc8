"""Where PostgreSQL is and what each connection asks of it: the parameters handed to libpq, read from the settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from psycopg.pq.abc import PGconn
from pydantic import SecretStr
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url

from service.platform.name import NAME
from service.platform.settings import PlatformSettings
from service.platform.settings.secrets import SecretUnreadable, read_secret

# What the server enforces by itself, so that a killed or frozen replica leaves nothing running behind.
IDLE_IN_TRANSACTION = 5.0
CHECK_CLIENT = 0.5
# A statement's own ceiling lies above the deadline of a request, which cancels it with a better answer.
STATEMENT_MARGIN = 5.0
# A wait for another session's lock ends in the middle of a request: its answer then says what it waited for, and what
# runs beside the requests is shown as failing long before its statement would have been cut.
LOCK_SHARE, LOCK_MOST = 0.5, 5.0

# Of the database, and of each session whatever its role's default is: in another, text comes back as bytes, or never.
ENCODING = "UTF8"
# Likewise: what driver and units are written for, in each session whatever its role's default is. The driver reads
# times and intervals in these forms alone; floats lose no digit, an array's NULL is none of its texts, a backslash in a
# literal is one, a lock that was waited for shows what was committed meanwhile, and a COMMIT that did not wait for its
# standby warns. A pooler refuses them; set them on its role.
FORMS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "client_min_messages": "warning",
}
# What is acknowledged is on the disk, and a session that waits for work is not ended for it; the URL may say otherwise.
PROMISED = {"synchronous_commit": "on", "idle_session_timeout": "0"}
# Likewise of a client whose machine or network went without a word: PostgreSQL asks it after two hours, as the system
# does by default, and until then keeps its sessions, with their place among max_connections and a migration's lock.
GONE = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

# PgBouncer's words, whose SQLSTATE is that of every breach of the protocol; they are translated nowhere.
OPTIONS_REFUSED = "unsupported startup parameter"

# A silent network is noticed in about half a minute without a query; the URL may say otherwise.
DEFAULTS = {
    "fallback_application_name": NAME,
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


class PasswordUnreadable(Exception):
    """The password file cannot be read, or holds no password now, as while it is written; names the file."""


@dataclass(frozen=True)
class Address:
    """libpq's parameters for one way to the database; `parameters` may change when the password file does."""

    _parameters: Mapping[str, str]
    _password_file: Path | None
    prepares: bool

    @classmethod
    def pool(cls, settings: PlatformSettings) -> Self:
        """Return the way that requests take: possibly through PgBouncer, which refuses start-up options."""
        options = {} if settings.database_pooled else ceilings(settings)
        return cls._make(_given(settings.database_url), settings, options, prepares=not settings.database_pooled)

    @classmethod
    def direct(cls, settings: PlatformSettings) -> Self:
        """Return the way past the pooler, for the listener and for migrations, which lift limits for themselves."""
        url = _given(settings.database_direct_url or settings.database_url)
        return cls._make(url, settings, ceilings(settings), prepares=True)

    @classmethod
    def _make(cls, url: SecretStr, settings: PlatformSettings, options: Mapping[str, str], *, prepares: bool) -> Self:
        arguments = connect_arguments(make_url(url.get_secret_value()))
        parameters = DEFAULTS | {name: str(value) for name, value in arguments.items()}
        parameters["client_encoding"] = ENCODING
        if prepares:  # past every pooler
            # between ours: what an operator writes into the URL wins over a limit, and not over a form
            all_of_them = [_words({**PROMISED, **GONE, **options}), parameters.get("options", ""), _words(FORMS)]
            parameters["options"] = " ".join(filter(None, all_of_them))
        return cls(parameters, settings.database_password_file, prepares)

    @property
    def parameters(self) -> dict[str, str]:
        """Return the parameters for a new connection, with the password as the file has it now."""
        if self._password_file is None:
            return dict(self._parameters)
        return {**self._parameters, "password": _read_password(self._password_file)}


def _words(options: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value.replace(' ', '\\ ')}" for name, value in options.items())


def _read_password(file: Path) -> str:
    """Return what the file holds now, without blanks around it. Raises PasswordUnreadable; waits for nobody."""
    try:
        password = read_secret(file)
    except SecretUnreadable as error:
        reason = str(error)
    except OSError as error:
        reason = str(error.strerror)
    else:
        if password:
            return password
        reason = "is empty"
    raise PasswordUnreadable(f"SERVICE_DATABASE_PASSWORD_FILE: {file}: {reason}")


def _given(url: SecretStr | None) -> SecretStr:
    if url is None:
        raise ValueError("SERVICE_DATABASE_URL: must be set before the database is opened")
    return url


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return what libpq is told for an address."""
    dialect: Any = PGDialect_psycopg  # it knows several hosts in one URL; its constructor has no types
    _, arguments = dialect().create_connect_args(url)
    return dict(arguments)


def encoding_problem(pgconn: PGconn) -> str | None:
    """Return what is wrong with the encoding of the database that a new connection leads to, and what to do."""
    encoding = pgconn.parameter_status(b"server_encoding")  # a pooler may not tell
    if encoding is None or encoding.decode() == ENCODING:
        return None
    return (
        f"the database {pgconn.db.decode()} is encoded in {encoding.decode()}, and {ENCODING} is needed: "
        f"CREATE DATABASE ... ENCODING '{ENCODING}' TEMPLATE template0"
    )


def asked_for_forms(options: bytes) -> bool:
    """Tell, by what a session was begun with, whether it is to be past every pooler."""
    return _words(FORMS).encode() in options


def pooler_problem(refusal: str, *, past: bool) -> str:
    """Return what to do where the words with which a connection was refused are a pooler's; else nothing.

    `past`: whether it was to be past every pooler.
    """
    if OPTIONS_REFUSED not in refusal:
        return ""
    if not past:
        return "; that is PgBouncer: set what the URL has as `options` on the role, ALTER ROLE ... SET ..."
    return (
        "; that is PgBouncer, which refuses what sessions ask for: set SERVICE_DATABASE_POOLED=true, "
        "and SERVICE_DATABASE_DIRECT_URL to an address past it"
    )


def ceilings(settings: PlatformSettings) -> dict[str, str]:
    """Return the limits a session should have; with DATABASE_POOLED they are set on the role, see `service check`."""
    return {
        "statement_timeout": _milliseconds(settings.request_deadline + STATEMENT_MARGIN),
        "lock_timeout": _milliseconds(min(LOCK_MOST, LOCK_SHARE * settings.request_deadline)),
        "idle_in_transaction_session_timeout": _milliseconds(IDLE_IN_TRANSACTION),
        "client_connection_check_interval": _milliseconds(CHECK_CLIENT),
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
