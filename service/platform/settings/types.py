"""The types of settings: how a value is read, and the sentence when it can't be."""

import ipaddress
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from service.platform.settings import addresses
from service.platform.settings.kinds import split

_MAPPED = 96  # the bits before an IPv4 address that is written as ::ffff:10.0.0.0
ADDRESS = "address"  # the kind of error whose words are a whole sentence, for words.py


class SecretURL(SecretStr):
    """An address with a password in it: shown with the password replaced, where another secret shows nothing."""

    def shown(self) -> str:
        from sqlalchemy.engine import make_url  # here: many a verb has no database

        url = make_url(self.get_secret_value())
        passwords = {name: "***" for name in url.query if "password" in name}
        return url.update_query_dict(passwords).render_as_string(hide_password=True)


def _bind(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be host:port or [ipv6]:port, with a port from 0 to 65535")
    if not host:
        raise ValueError(
            f"must say where to listen: 127.0.0.1:{port} for this machine alone, [::]:{port} for all that reach it"
        )
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError("must write an IPv6 address in brackets: [::1]:8000")
    return value


def _database_url(value: SecretStr) -> SecretURL:
    from service.platform.settings.database_address import database_url  # the same

    return SecretURL(database_url(value.get_secret_value()).render_as_string(hide_password=False))


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must hold addresses or networks such as 10.0.0.0/8") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= _MAPPED:  # peers are compared as the IPv4 addresses that they are
        return str(ipaddress.ip_network((mapped, network.prefixlen - _MAPPED)))
    return str(network)


# What a token may be signed with: the issuer alone has the key. With HMAC (HS256…) whoever can check could also sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")


def _algorithm(value: str) -> str:
    if value not in ALGORITHMS:
        raise ValueError(f"must hold algorithms with a public key, of {', '.join(ALGORITHMS)}; {value!r} is none")
    return value


def _scope(value: str) -> str:
    if not value.isascii() or any(character <= " " or character in '"\\' for character in value):
        raise ValueError("must hold scopes, separated by commas: ASCII without spaces, quotes and backslashes")
    return value


def _openid(value: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in value:
        raise ValueError("must hold openid, without which a provider does not say who signed in")
    return value


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must hold at least one algorithm")
    return value


def _checked[Given, Read](check: Callable[[Given], Read]) -> AfterValidator:
    """Return a validator whose error says what `check` says, and no more: pydantic puts words before a ValueError's."""

    def validate(value: Given) -> Read:
        try:
            return check(value)
        except ValueError as error:
            raise PydanticCustomError(ADDRESS, "{words}", {"words": str(error)}) from None

    return AfterValidator(validate)


def _split(value: Any) -> Any:
    return tuple(split(value)) if isinstance(value, str) else value


Seconds = float
Bind = Annotated[str, _checked(_bind)]
DatabaseURL = Annotated[SecretStr, _checked(_database_url)]
Names = Annotated[tuple[Annotated[str, _checked(addresses.host_name)], ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Annotated[str, _checked(addresses.origin)], ...], NoDecode, BeforeValidator(_split)]
Issuer = Annotated[str, _checked(addresses.issuer)]
HttpsAddress = Annotated[str, _checked(addresses.https_address)]
Algorithms = Annotated[
    tuple[Annotated[str, _checked(_algorithm)], ...], NoDecode, BeforeValidator(_split), _checked(_some)
]
Scopes = Annotated[tuple[Annotated[str, _checked(_scope)], ...], NoDecode, BeforeValidator(_split), _checked(_openid)]
Networks = Annotated[tuple[Annotated[str, _checked(_network)], ...], NoDecode, BeforeValidator(_split)]
