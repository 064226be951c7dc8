"""What an address in a setting may be, checked whole: nothing that was given is dropped, and nothing can never match.

Pure. Each function returns the address as it is compared or used, or raises ValueError with words that follow the
variable's name; a password is in none of them.
"""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DATABASE_FORM = "must look like postgresql://user:password@host:5432/name"
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
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
DEFAULT_PORTS = {"http": 80, "https": 443}


def database_url(text: str) -> URL:
    """Return a database's address, all of which libpq takes."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(DATABASE_FORM) from None
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
        if " " in host or ("%" in host and ":" not in host):  # an IPv6 address may name its interface
            raise ValueError(f"{host!r} is no host; separate several by commas")


def _taken_whole(arguments: Mapping[str, str]) -> None:
    """libpq reads back what it was given."""
    try:
        read = conninfo_to_dict(make_conninfo("", **arguments))
    except ProgrammingError as error:
        raise ValueError(f"libpq does not take it: {str(error).strip()}") from None
    lost = [name for name, value in arguments.items() if str(read.get(name, "")) != value]
    if lost:
        raise ValueError(f"libpq does not take its {', '.join(lost)} whole")


def host_name(text: str) -> str:
    """Return a host name as browsers write it: lower case, punycode, without the dot at its end."""
    right = "must hold host names such as example.org, separated by commas"
    if "://" in text or "/" in text:
        raise ValueError(f"{right}; {text!r} is a URL")
    if "*" in text:
        raise ValueError(f"{right}; {text!r} has a wildcard, which matches nothing: name each host")
    if text.startswith("[") and text.endswith("]"):
        return f"[{_ipv6(text[1:-1], right)}]"
    if re.fullmatch(r"[^:]+:[0-9]+", text):
        raise ValueError(f"{right}; leave the port of {text!r} out")
    return _name(text, right)


def origin(text: str) -> str:
    """Return an origin as browsers write it: lower case, punycode, without the port that its scheme has anyway."""
    right = "must hold origins such as https://example.org, separated by commas"
    parts = urlsplit(text.lower())
    if parts.scheme not in DEFAULT_PORTS or not parts.netloc:
        raise ValueError(f"{right}; {text!r} is none")
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{right}; leave out of {text!r} all but scheme, host and port")
    if "*" in text:
        raise ValueError(f"{right}; {text!r} has a wildcard, which matches nothing: name each origin")
    name, port = _host_and_port(parts.netloc, right)
    shown = f"[{_ipv6(name[1:-1], right)}]" if name.startswith("[") else _name(name, right)
    return f"{parts.scheme}://{shown}{'' if port in {None, DEFAULT_PORTS[parts.scheme]} else f':{port}'}"


def issuer(text: str) -> str:
    """Return an identity provider's name as it was given, as it is compared letter by letter: an https address."""
    if "?" in text:
        raise ValueError("must be the issuer's own name, an https address without a question mark")
    return https_address(text)


def https_address(text: str) -> str:
    """Return an address at which something trusted answers: https, or http on this machine."""
    right = "must be an https address, such as https://login.example.org/realms/main"
    parts = urlsplit(text)
    if parts.scheme not in DEFAULT_PORTS or not parts.netloc or not all("!" <= character <= "~" for character in text):
        raise ValueError(right)  # an address is ASCII: a name in other letters is written as xn--
    if parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{right}; leave out what stands before an @ or behind a #")
    name, _ = _host_and_port(parts.netloc.lower(), right)
    _ = _ipv6(name[1:-1], right) if name.startswith("[") else _name(name, right)
    if parts.scheme == "http" and not _is_loopback(name.strip("[]")):
        raise ValueError("must begin with https: whoever is on the way could answer with keys of his own")
    return text


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _host_and_port(netloc: str, right: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?", netloc)
    if found is None or not 0 < int(found[2] or 1) <= 65535:
        raise ValueError(f"{right}; {netloc!r} has no host and port")
    return found[1], int(found[2]) if found[2] else None


def _ipv6(text: str, right: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(f"{right}; [{text}] is no IPv6 address") from None


def _name(text: str, right: str) -> str:
    try:
        name = text.rstrip(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ValueError(f"{right}; {text!r} is none") from None
    if not name or len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError(f"{right}; {text!r} is none")
    return name
