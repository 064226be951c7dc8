"""Who gets in, as tables: origins, hosts, content types, and framings that no honest client sends (B7)."""

import pytest

from service.platform.errors import Invalid
from service.platform.server.entry import Headers, is_allowed_origin, is_elsewhere, refusal
from tests.platform.server.child import make_settings

ORIGINS = [
    # origin, host, allowed origins, whether
    (None, "example.org", (), True),
    ("https://example.org", "example.org", (), True),
    ("https://example.org", "EXAMPLE.org", (), True),
    ("https://example.org", "example.org:443", (), True),
    ("https://example.org:443", "example.org", (), True),
    ("http://example.org", "example.org:80", (), True),
    ("http://127.0.0.1:8000", "127.0.0.1:8000", (), True),
    ("http://[::1]:8000", "[::1]:8000", (), True),
    ("http://example.org", "example.org:443", (), False),
    ("http://example.org:8000", "example.org", (), False),
    ("http://example.org:8000", "example.org:8001", (), False),
    ("https://example.org.evil", "example.org", (), False),
    ("https://evil", "example.org", (), False),
    ("null", "example.org", (), False),
    ("null", "null", (), False),
    ("", "", (), False),
    ("file://", "", (), False),
    ("http://[", "example.org", (), False),
    ("http://[::1", "[::1]", (), False),
    ("//[x]y", "example.org", (), False),
    ("http://[", "example.org", ("https://example.org",), False),
    ("https://app.example.org", "api.example.org", ("https://app.example.org",), True),
    ("HTTPS://app.example.org", "api.example.org", ("https://app.example.org",), True),
    ("http://app.example.org", "api.example.org", ("https://app.example.org",), False),
    ("https://api.example.org", "api.example.org", ("https://app.example.org",), False),
    ("null", "api.example.org", ("https://app.example.org",), False),
]


@pytest.mark.parametrize(("origin", "host", "allowed", "whether"), ORIGINS)
def test_origins(origin: str | None, host: str, allowed: tuple[str, ...], *, whether: bool) -> None:
    assert is_allowed_origin(origin, host, allowed) is whether


@pytest.mark.parametrize(
    ("origin", "elsewhere"),
    [("https://app.example.org", True), ("https://api.example.org", False), ("null", True), (None, False)],
)
def test_who_is_let_in_by_a_list_alone(origin: str | None, *, elsewhere: bool) -> None:
    assert is_elsewhere(origin, "api.example.org") is elsewhere


JSON = {"content-type": "application/json", "content-length": "2"}
REFUSALS = [
    # method, headers, settings, status
    ("GET", {}, {}, None),
    ("GET", {"host": "anything:8000"}, {}, None),
    ("GET", {"host": "[::1]:8000"}, {}, None),
    ("GET", {"host": "a b"}, {}, 400),
    ("GET", {"host": "a/b"}, {}, 400),
    ("GET", {"host": "x@y"}, {}, 400),
    ("GET", {"host": "x:"}, {}, 400),
    ("GET", {"host": "\xff"}, {}, 400),
    ("GET", {"host": "Good.example."}, {"allowed_hosts": ("good.example",)}, None),
    ("GET", {"host": "good.example:8000"}, {"allowed_hosts": ("good.example",)}, None),
    ("GET", {"host": "bad.example"}, {"allowed_hosts": ("good.example",)}, 421),
    ("GET", {}, {"allowed_hosts": ("good.example",)}, 421),
    ("POST", {"content-length": "2", "transfer-encoding": "chunked"}, {}, 400),
    ("GET", {"content-length": "0", "transfer-encoding": "chunked"}, {}, 400),
    ("POST", {}, {}, None),
    ("POST", {"content-length": "0"}, {}, None),
    ("POST", JSON, {}, None),
    ("POST", JSON | {"content-type": "Application/JSON; charset=utf-8"}, {}, None),
    ("POST", {"content-length": "2"}, {}, 415),
    ("POST", {"transfer-encoding": "chunked"}, {}, 415),
    ("POST", JSON | {"content-type": "text/plain"}, {}, 415),
    ("DELETE", JSON | {"content-type": "application/jsonx"}, {}, 415),
    ("POST", JSON | {"host": "x", "origin": "http://x"}, {}, None),
    ("POST", JSON | {"host": "x", "origin": "http://y"}, {}, 403),
    ("PUT", JSON | {"host": "x", "origin": "null"}, {}, 403),
    ("DELETE", {"host": "x", "origin": "http://y"}, {}, 403),
    ("GET", {"host": "x", "origin": "http://y"}, {}, None),
    ("HEAD", {"host": "x", "origin": "http://y"}, {}, None),
    ("OPTIONS", {"host": "x", "origin": "http://y"}, {}, None),
    ("upgrade", {"host": "x", "origin": "http://y"}, {}, 403),
    ("upgrade", {"host": "x", "origin": "http://x"}, {}, None),
    ("upgrade", {"host": "x"}, {}, None),
]


TWICE = [("content-type", "text/plain", "application/json"), ("origin", "http://evil.example", "http://x")]


@pytest.mark.parametrize(("name", "first", "last"), TWICE)
def test_what_decides_is_given_once_or_two_readers_take_another_of_them(name: str, first: str, last: str) -> None:
    given = [("host", "x"), ("content-length", "2"), ("content-type", "application/json")]
    kept = [(known, value) for known, value in given if known != name]
    pairs = [(known.encode(), value.encode()) for known, value in [*kept, (name, first), (name, last)]]

    error = refusal("POST", Headers.of(pairs), make_settings())

    assert isinstance(error, Invalid)
    assert str(error).lower() == f"{name} is given twice"


@pytest.mark.parametrize("host", ["bad.example", ""])
def test_a_host_that_is_not_served_is_told_by_which_setting(host: str) -> None:
    error = refusal("GET", Headers(host=host), make_settings(allowed_hosts=("good.example",)))

    assert str(error) == f"the Host {host!r} is not served here: SERVICE_ALLOWED_HOSTS does not hold it"


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(("origin", "right"), [(None, f"application/json or {FORM}"), ("http://x", "application/json")])
def test_what_a_body_must_be_is_told_as_it_is_where_it_was_sent(origin: str | None, right: str) -> None:
    headers = Headers(host="x", origin=origin, content_type="text/plain", has_body=True)

    error = refusal("POST", headers, make_settings(), takes=(FORM,))

    assert str(error) == f"a body is {right}; this one is 'text/plain'"


@pytest.mark.parametrize(("method", "headers", "changes", "status"), REFUSALS)
def test_refusals(method: str, headers: dict[str, str], changes: dict[str, object], status: int | None) -> None:
    parsed = Headers.of([(name.encode(), value.encode("latin1")) for name, value in headers.items()])
    upgrade = method == "upgrade"

    error = refusal("GET" if upgrade else method, parsed, make_settings(**changes), upgrade=upgrade)

    assert (error.status if error else None) == status
