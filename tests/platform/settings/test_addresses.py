"""Addresses in settings: nothing given is dropped, what can never match is refused, and no password is repeated."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.platform.database.address import Address
from service.platform.database.development import for_psql
from service.platform.settings import PlatformSettings
from service.platform.settings.addresses import host_name, origin
from service.platform.settings.database_address import database_url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://user:p%00w@host:6543/db", "control character in its password"),
        ("postgresql://us%00er@host/db", "control character in its user"),
        ("postgresql://host/d%00b", "control character in its dbname"),
        ("postgresql://ho%00st/db", "is no host"),
        ("postgresql://db..svc.cluster.local/db", "'db..svc.cluster.local' is no host: a part between"),
        ("postgresql:///db?host=db-0.example:5432&host=.example:5432", "'.example' is no host"),
        (f"postgresql://{'a' * 64}.example/db", "is no host: a part between two dots is empty, or longer than 63"),
        ("postgresql://host/db?application_name=a%0Ab", "control character in its application_name"),
        ("postgresql://host/db?connect_timeout=abc", "connect_timeout must be a whole number, not 'abc'"),
        ("postgresql://host/db?tcp_user_timeout=1s", "tcp_user_timeout must be a whole number"),
        ("postgresql://host/db?sslmode=no-verify", "sslmode must be one of disable, allow, prefer, require"),
        ("postgresql://host/db?target_session_attrs=writable", "target_session_attrs must be one of"),
        ("postgresql://host/db?nonsense=1", "libpq does not take it"),
        ("postgresql://host/db?service=prod", "names a service"),
        ("postgresql://one/db?host=two", "names its host twice"),
        ("postgresql://host:1/db?port=2", "names its port twice"),
        ("postgresql://me:a@host/db?password=b", "names its password twice"),
        ("postgresql://host/db?sslmode=require&sslmode=disable", "gives sslmode more than once"),
        ("postgresql://host:0/db", "a port must be a number from 1 to 65535"),
        ("postgresql://host:65536/db", "a port must be a number from 1 to 65535"),
        ("postgresql://host:x/db", "must look like postgresql://"),
        ("postgresql://me@a:5432,b:5433/db", r"several hosts like .*name\?host=one,two&port=5432,5432"),
        ("postgresql:///db?host=a,b&port=1,2,3", "number of hosts and ports"),
        ("mysql://host/db", "must look like postgresql://"),
        ("host/db", "must look like postgresql://"),
        ("", "must look like postgresql://"),
    ],
)
def test_what_libpq_would_drop_or_refuse_later_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        database_url(url)

    assert "p%00w" not in str(caught.value)
    assert "p\x00w" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:the@secret@host:1/db",
        "postgresql://me:the@secret %@host/db",
        "postgresql://me@server:the@secret@host:1:2/db",
        "postgresql://me:the@sec/ret@host/db",
        "postgresql://me:the@sec?ret@host/db",
        "postgresql://me:the@@secret@host/db?host=other",
    ],
)
def test_a_password_with_an_at_is_refused_before_a_part_of_it_is_taken_for_the_host(url: str) -> None:
    """`service settings` showed that part, and so did each line about a database that was away."""
    with pytest.raises(ValueError, match="an @ in its password must be written as %40") as caught:
        database_url(url)

    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host:5432/db?user=me@server&password=secret",
        "postgresql://me@host:5432/?password=secret&application_name=a@b",
        "postgresql://[::1]:5432/db?user=me@server&password=secret",
        "postgresql://host:5432?user=me@server&password=secret",
    ],
)
def test_an_at_behind_the_question_mark_is_refused_where_the_port_would_be_a_password(url: str) -> None:
    """As JDBC's addresses have them: what is behind it was the host, with the password in it."""
    with pytest.raises(ValueError, match="an @ behind the question mark must be written as %40") as caught:
        database_url(url)

    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:password@host:5432/name",
        "postgres://host/name",
        "postgresql://user:p%40ss%2Fw%3Ard@[::1]:6543/name?sslmode=verify-full&connect_timeout=3",
        "postgresql://me@/db?host=/run/postgresql",
        "postgresql://me@/db?host=/home/me/my%20shop/100%25/.data",
        "postgresql://me@server:p%40ss@host/a%40b?application_name=a@b",
        "postgresql://me:password@host:5432/db?application_name=a@b",
        "postgresql://me:123?x@host/db",
        "postgresql://me:password@/db?host=@socket",
        "postgresql://me@/db?host=a,b&port=1,2",
        "postgresql://me@/db?host=a:1&host=b:2&target_session_attrs=read-write",
        "postgresql://host/db?options=-c%20search_path%3Dx&application_name=a%20b",
    ],
)
def test_what_libpq_takes_is_taken(url: str) -> None:
    assert database_url(url).get_backend_name() == "postgresql"


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://me:hunter2@/db?host=a:1&host=b:2", "a,b", "1,2"),
        ("postgresql://me@/db?host=a:1&password=hunter2&sslpassword=hunter2", "a", "1"),
        ("postgresql://me@/db?host=a&host=b", "a,b", None),
        ("postgresql://me@/db?host=a,b&port=1,2", "a,b", "1,2"),
        ("postgresql://me:hunter2@a:1/db", "a", "1"),
        ("postgresql://me@/db?host=/home/me/my%20shop/1+1/100%25/.data&port=1", "/home/me/my shop/1 1/100%/.data", "1"),
    ],
)
def test_psql_is_led_to_the_same_places_and_told_no_password(url: str, hosts: str, ports: str | None) -> None:
    told = for_psql(database_url(url).render_as_string(hide_password=False))
    read = conninfo_to_dict(told)

    assert "hunter2" not in told
    assert (read["host"], read.get("port"), read["user"], read["dbname"]) == (hosts, ports, "me", "db")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
@example("Our Shop")  # blanks that are written as such are refused by libpq 18
@example("a+b")
def test_a_user_and_a_database_are_told_as_they_were_given(name: str) -> None:
    from urllib.parse import quote

    told = for_psql(f"postgresql://{quote(name, safe='')}@host/{quote(name, safe='')}?application_name=a%20b%2Bc")
    read = conninfo_to_dict(told)

    assert " " not in told
    assert (read["user"], read["dbname"], read["application_name"]) == (name, name, "a b+c")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_password_arrives_at_libpq_as_it_was_given(password: str) -> None:
    from urllib.parse import quote

    url = f"postgresql://me:{quote(password, safe='')}@host:6543/db"
    parameters = Address.pool(PlatformSettings(database_url=url)).parameters
    read = conninfo_to_dict(make_conninfo("", **parameters))

    assert (read["password"], read["host"], read["port"]) == (password, "host", "6543")


@pytest.mark.parametrize(
    ("given_", "read"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ("my_service", "my_service"),
    ],
)
def test_a_host_is_written_as_browsers_do(given_: str, read: str) -> None:
    assert host_name(given_) == read


@pytest.mark.parametrize(
    "wrong",
    ["*.example.org", "['example.org']", "a.example b.example", "https://example.org", "example.org:8000",
     "example.org/x", "-x.example", "a..example", "x" * 64 + ".example", '"example.org"', "[::g]", "[::1", "@"],
)  # fmt: skip
def test_a_host_that_can_never_match_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"must hold host names such as example\.org"):
        host_name(wrong)


@pytest.mark.parametrize(
    ("given_", "read"),
    [
        ("https://example.org", "https://example.org"),
        ("HTTPS://Example.ORG/", "https://example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://example.org:80", "http://example.org"),
        ("http://example.org:443", "http://example.org:443"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_written_as_browsers_do(given_: str, read: str) -> None:
    assert origin(given_) == read


@pytest.mark.parametrize(
    "wrong",
    ["https://*.example.org", "['https://example.org']", "https://a.example https://b.example", "example.org", "null",
     "ftp://example.org", "https://", "https://example.org/path", "https://me@example.org", "https://example.org:0",
     "https://example.org:99999", "https://example.org?x", "//example.org"],
)  # fmt: skip
def test_an_origin_that_can_never_match_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"must hold origins such as https://example\.org"):
        origin(wrong)
