"""What a database's address in a setting may be: what libpq takes, whole. Loaded only where there is one.

Pure. It returns the address, or raises ValueError with words that follow the variable's name; a password is in none of
them.
"""

import re
from collections.abc import Mapping

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DATABASE_FORM = "must look like postgresql://user:password@host:5432/name"
SEVERAL_FORM = "must name several hosts like postgresql://user:password@/name?host=one,two&port=5432,5432"
_SEVERAL = re.compile(r":[0-9]+,[^@]*/")  # as libpq's own addresses have them, which SQLAlchemy does not read
# Both would take what is behind the first one for the host, and show it: settings, and each line about that host.
_AT_IN_PASSWORD = re.compile(r"[^:/]*://[^:/]*:[^@]*@[^?]*(\?[^=]*)?@")
# Where there is no password, SQLAlchemy would take the port for one, and what is behind this @ for the host.
_AT_IN_QUERY = re.compile(r"[^:/]*://([^:/?@]*@)?(\[[^]/]*\](:[0-9]*)?|[^:/?@]*:[0-9]*)(/[^?@]*)?\?[^=@]*=[^@]*@")
# libpq looks at these only when it connects, and then says no more than that it could not.
_WHOLE_NUMBERS = frozenset(
    {"connect_timeout", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout"}
)
_WORDS: Mapping[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("direct", "postgres"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}


def database_url(text: str) -> URL:
    """Return a database's address, all of which libpq takes."""
    if _AT_IN_QUERY.match(text):
        raise ValueError("an @ behind the question mark must be written as %40")
    if _AT_IN_PASSWORD.match(text):
        raise ValueError("an @ in its password must be written as %40, and so must one in its database's name")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(SEVERAL_FORM if _SEVERAL.search(text) else DATABASE_FORM) from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(DATABASE_FORM)
    url = url.set(drivername="postgresql+psycopg")
    _said_once(url)
    if url.port == 0:
        raise ValueError("a port must be a number from 1 to 65535, not '0'")
    arguments = _libpq_arguments(url)
    for name, value in arguments.items():
        _check_argument(name, value)
    _check_hosts(arguments)
    _taken_whole(arguments)
    return url


def _said_once(url: URL) -> None:
    """A part that is given before the question mark and behind it would be dropped in one of the two places."""
    parts = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database}
    for name, value in parts.items():
        if value is not None and name in url.query:
            raise ValueError(f"names its {name} twice, before the question mark and behind it; leave one out")
    for name, given in url.query.items():
        if not isinstance(given, str) and name != "host":
            raise ValueError(f"gives {name} more than once")


def _libpq_arguments(url: URL) -> dict[str, str]:
    try:
        _, arguments = PGDialect_psycopg().create_connect_args(url)  # type: ignore[no-untyped-call]  # SQLAlchemy's
    except (ArgumentError, ValueError) as error:
        raise ValueError(f"{DATABASE_FORM}: {error}") from None
    return {name: str(value) for name, value in dict(arguments).items()}


def _check_argument(name: str, value: str) -> None:
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError(f"holds a control character in its {name}, behind which libpq would read nothing")
    if name in {"service", "servicefile"}:
        raise ValueError(f"names a {name}; write out what it holds, as service files are not read")
    if name in _WHOLE_NUMBERS and not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if name in _WORDS and value not in _WORDS[name]:
        raise ValueError(f"{name} must be one of {', '.join(_WORDS[name])}, not {value!r}")


def _check_hosts(arguments: Mapping[str, str]) -> None:
    hosts, ports = arguments.get("host", "").split(","), arguments.get("port", "").split(",")
    for port in filter(None, ports):
        if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"a port must be a number from 1 to 65535, not {port!r}")
    if len(ports) not in {1, len(hosts)}:
        raise ValueError(f"names {len(hosts)} hosts and {len(ports)} ports")
    for host in hosts:
        if host.startswith(("/", "@")):  # those are sockets in the file system, and a folder may be called as it likes
            continue
        if " " in host or ("%" in host and ":" not in host):  # an IPv6 address may name its interface
            raise ValueError(f"{host!r} is no host; separate several by commas")
        _look_up_able(host)


def _look_up_able(host: str) -> None:
    """Where a host is looked up, one that no name server can be asked for is no error of a network."""
    try:
        host.encode("idna")
    except UnicodeError:
        why = "a part between two dots is empty, or longer than 63 letters, or has one that no name has"
        raise ValueError(f"{host!r} is no host: {why}") from None


def _taken_whole(arguments: Mapping[str, str]) -> None:
    """libpq reads back what it was given."""
    try:
        read = conninfo_to_dict(make_conninfo("", **arguments))
    except ProgrammingError as error:
        raise ValueError(f"libpq does not take it: {str(error).strip()}") from None
    lost = [name for name, value in arguments.items() if str(read.get(name, "")) != value]
    if lost:
        raise ValueError(f"libpq does not take its {', '.join(lost)} whole")
