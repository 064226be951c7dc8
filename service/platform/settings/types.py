"""The types of settings: how a value is read, and the sentence when it can't be."""

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


class SecretURL(SecretStr):
    """An address with a password in it: shown with the password replaced, where another secret shows nothing."""

    def shown(self) -> str:
        url = make_url(self.get_secret_value())
        passwords = {name: "***" for name in url.query if "password" in name}
        return url.update_query_dict(passwords).render_as_string(hide_password=True)


def _bind(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise PydanticCustomError("bind", "must be host:port or [ipv6]:port, with a port from 0 to 65535")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise PydanticCustomError("bind", "must write an IPv6 address in brackets: [::1]:8000")
    return value


def _database_url(value: SecretStr) -> SecretURL:
    try:
        url = make_url(value.get_secret_value())
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in {"postgresql", "postgres"}:
        raise PydanticCustomError("url", "must look like postgresql://user:password@host:5432/name")
    driver_url = url.set(drivername="postgresql+psycopg")
    return SecretURL(driver_url.render_as_string(hide_password=False))


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


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Seconds = float
LogLevelName = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["json", "console"], BeforeValidator(_lower)]
Bind = Annotated[str, AfterValidator(_bind)]
DatabaseURL = Annotated[SecretStr, AfterValidator(_database_url)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)]
