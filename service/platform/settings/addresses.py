"""What an address in a setting may be, checked whole: nothing that was given is dropped, and nothing can never match.

Pure. Each function returns the address as it is compared or used, or raises ValueError with words that follow the
variable's name and may repeat the text; words.py takes a password out of it, though not out of a part.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
DEFAULT_PORTS = {"http": 80, "https": 443}


def host_name(text: str) -> str:
    """Return a host name as browsers write it: lower case, punycode, without the dot at its end."""
    right = "must hold host names such as example.org, separated by commas"
    if "://" in text or "/" in text:
        raise ValueError(f"{right}; {text!r} is a URL")
    if "*" in text:
        raise ValueError(f"{right}; {text!r} has a wildcard, which matches nothing: name each host")
    if text.startswith("[") and text.endswith("]"):
        return f"[{_ipv6(text[1:-1], right)}]"
    if re.fullmatch(r"([^:]+|\[.*\]):[0-9]+", text):
        raise ValueError(f"{right}; leave the port of {text!r} out")
    if text.count(":") > 1:
        raise ValueError(f"{right}; write an IPv6 address in brackets: [{_ipv6(text, right)}]")
    return _name(text, right)


def origin(text: str) -> str:
    """Return an origin as browsers write it: lower case, punycode, without the port that its scheme has anyway."""
    right = "must hold origins such as https://example.org, separated by commas"
    parts = _parts(text.lower(), right)
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
    parts = _parts(text, right)
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


def _parts(text: str, right: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # it quotes what is in brackets, which may be a password
        raise ValueError(f"{right}; its brackets hold no IPv6 address") from None


def _host_and_port(netloc: str, right: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?", netloc)
    if found is None or not 0 < int(found[2] or 1) <= 65535:
        raise ValueError(f"{right}; between // and the next / is no host and port")
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
