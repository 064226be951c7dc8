"""Settings: what is read, from where, and the sentence for what is wrong."""

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, PositiveInt, SecretStr
from pydantic_settings import BaseSettings

from service.features import FEATURES
from service.platform.feature import catalogue
from service.platform.settings import (
    Catalogue,
    FeatureSettings,
    PlatformSettings,
    SettingsError,
    documents,
    traces_wanted,
)
from service.platform.settings.words import describe_range, edit_distance
from service.platform.testing.copies import template_page
from service.settings import Settings

ROOT = Path(__file__).parents[3]
KNOWN = catalogue(Settings, FEATURES)
PLATFORM = catalogue(PlatformSettings, [])  # of a clone some may be required, which is none of these tests' business


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        PLATFORM.load()
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("SERVICE_BNID", "x", "SERVICE_BNID: no such setting; did you mean SERVICE_BIND?"),
        ("SERVICE_MAX_REQUEST", "9", "SERVICE_MAX_REQUEST: no such setting; did you mean SERVICE_MAX_REQUESTS?"),
        ("SERVICE_MAX_REQUESTS", "0", "SERVICE_MAX_REQUESTS: '0' must be a whole number from 1 to 100000"),
        ("SERVICE_MAX_REQUESTS", "many", "SERVICE_MAX_REQUESTS: 'many' must be a whole number from 1 to 100000"),
        ("SERVICE_DRAIN_DELAY", "5s", "SERVICE_DRAIN_DELAY: '5s' must be a number from 0 to 600"),
        ("SERVICE_DRAIN_DELAY", "nan", "SERVICE_DRAIN_DELAY: 'nan' must be a number from 0 to 600"),
        ("SERVICE_LOG_FORMAT", "xml", "SERVICE_LOG_FORMAT: 'xml' must be one of json, console"),
        ("SERVICE_DATABASE_POOLED", "maybe", "SERVICE_DATABASE_POOLED: 'maybe' must be true or false"),
        (
            "SERVICE_BIND",
            "8000",
            "SERVICE_BIND: '8000' must say where to listen: 127.0.0.1:8000 for this machine alone, "
            "[::]:8000 for all that reach it",
        ),
        (
            "SERVICE_BIND",
            "host:x",
            "SERVICE_BIND: 'host:x' must be host:port or [ipv6]:port, with a port from 0 to 65535",
        ),
        ("SERVICE_MAX_REQEUST", "9", "SERVICE_MAX_REQEUST: no such setting; did you mean SERVICE_MAX_REQUESTS?"),
        (
            "SERVICE_ALLOWED_HOSTS",
            "a.example b.example",
            "SERVICE_ALLOWED_HOSTS: 'a.example b.example' must hold host "
            "names such as example.org, separated by commas; 'a.example b.example' is none",
        ),
        (
            "SERVICE_ALLOWED_HOSTS",
            "example.org,::1",
            "SERVICE_ALLOWED_HOSTS: '::1' must hold host names such as example.org, separated by commas; "
            "write an IPv6 address in brackets: [::1]",
        ),
        (
            "SERVICE_ALLOWED_HOSTS",
            "[::1]:8000",
            "SERVICE_ALLOWED_HOSTS: '[::1]:8000' must hold host names such as example.org, separated by commas; "
            "leave the port of '[::1]:8000' out",
        ),
        ("SERVICE_BIND", "::1:80", "SERVICE_BIND: '::1:80' must write an IPv6 address in brackets: [::1]:8000"),
        (
            "SERVICE_TRUSTED_PROXIES",
            "10.0.0.0/8,nonsense",
            "SERVICE_TRUSTED_PROXIES: 'nonsense' must hold addresses or networks such as 10.0.0.0/8",
        ),
        (
            "SERVICE_DATABASE_POOLED",
            "true",
            "SERVICE_DATABASE_DIRECT_URL: must be set when SERVICE_DATABASE_POOLED is",
        ),
        (
            "SERVICE_REQUEST_DEADLINE",
            "60",
            "SERVICE_GRACEFUL_TIMEOUT: 15 is below SERVICE_REQUEST_DEADLINE, 60; requests in flight would be cut",
        ),
        (
            "SERVICE_AUTH_ISSUER",
            "https://login.example.org",
            "SERVICE_AUTH_AUDIENCE: must be set when SERVICE_AUTH_ISSUER is, or a token for another would do",
        ),
        (
            "SERVICE_AUTH_AUDIENCE",
            "orders",
            "SERVICE_AUTH_ISSUER: must be set when SERVICE_AUTH_AUDIENCE or SERVICE_AUTH_JWKS_URL is; "
            "without it everybody is a guest",
        ),
        (
            "SERVICE_AUTH_JWKS_URL",
            "https://login.example.org/keys",
            "SERVICE_AUTH_ISSUER: must be set when SERVICE_AUTH_AUDIENCE or SERVICE_AUTH_JWKS_URL is; "
            "without it everybody is a guest",
        ),
        (
            "SERVICE_AUTH_ALGORITHMS",
            "ES256,HS256",
            "SERVICE_AUTH_ALGORITHMS: 'HS256' must hold algorithms with a public key, of RS256, RS384, RS512, PS256, "
            "PS384, PS512, ES256, ES384, ES512, Ed25519, EdDSA; 'HS256' is none",
        ),
        (
            "SERVICE_AUTH_ISSUER",
            "http://login.example.org",
            "SERVICE_AUTH_ISSUER: 'http://login.example.org' must begin with https: whoever is on the way could "
            "answer with keys of his own",
        ),
        (
            "SERVICE_AUTH_CLIENT_ID",
            "web",
            "SERVICE_AUTH_ISSUER: must be set when SERVICE_AUTH_CLIENT_ID is; without it nobody can sign in",
        ),
        ("SERVICE_AUTH_CLIENT_SECRET", "x", "SERVICE_AUTH_CLIENT_ID: must be set when SERVICE_AUTH_CLIENT_SECRET is"),
        (
            "SERVICE_AUTH_SCOPES",
            "profile",
            "SERVICE_AUTH_SCOPES: 'profile' must hold openid, without which a provider does not say who signed in",
        ),
        ("SERVICE_SECRETS_DIR", "/nowhere", "SERVICE_SECRETS_DIR: '/nowhere' is not a directory"),
        ("service_secrets_dir", "/nowhere", "SERVICE_SECRETS_DIR: '/nowhere' is not a directory"),
        ("SERVICE_SECRET_DIR", "/", "SERVICE_SECRET_DIR: no such setting; did you mean SERVICE_SECRETS_DIR?"),
    ],
)
def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str) -> None:
    assert problems(monkeypatch, **{name: value}) == [problem]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_BIND", "postgresql://me:hunter2@host/db"),
        ("SERVICE_MAX_REQUESTS", "me:hunter2@host"),
        ("SERVICE_LOG_LEVEL", "https://hunter2@host"),
        ("SERVICE_ALLOWED_ORIGINS", "https://example.org,https://me:hun/hunter2@host"),
        ("SERVICE_ALLOWED_HOSTS", "https://me:hunter2@host"),
        ("SERVICE_ALLOWED_HOSTS", "me:'hunter2@host"),
        ("SERVICE_AUTH_ISSUER", "https://me:hunter2@host"),
        ("SERVICE_AUTH_JWKS_URL", "https://me:hunter2@ho@st"),
        ("SERVICE_AUTH_JWKS_URL", "https://me:hunter2/3@host"),
        ("SERVICE_AUTH_ISSUER", "https://me:HUNTER2#3@host"),
        ("SERVICE_AUTH_ISSUER", "https://me:[hunter2]@host"),
        ("SERVICE_ALLOWED_ORIGINS", "https://me:[hunter2]@host"),
        ("SERVICE_TRUSTED_PROXIES", "http://me:hunter2@host"),
    ],
)
def test_a_password_in_a_wrong_address_is_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    (problem,) = problems(monkeypatch, **{name: value})

    assert problem.startswith(f"{name}: '")
    assert "***@" in problem
    assert "hunter2" not in problem.lower()


def test_what_is_no_address_is_repeated_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = problems(monkeypatch, SERVICE_LOG_LEVEL="ops@example.org")

    assert problem.startswith("SERVICE_LOG_LEVEL: 'ops@example.org' must be")


@pytest.mark.parametrize(
    "issuer",
    [
        "login.example.org",
        "ftp://login.example.org",
        "https://",
        "https://me:secret@login.example.org",
        "https://login.example.org/#x",
        "https://login.example.org/?tenant=x",
        "https://login.example.org/two words",
        "https://login.example.org/\x7f",
        "https://bücher.example",
        "https://login..example.org",
        "http://10.0.0.1/realms/main",
        "http://localhost.example.org/",
    ],
)
def test_an_issuer_that_cannot_be_one_stops_the_start(monkeypatch: pytest.MonkeyPatch, issuer: str) -> None:
    (problem,) = problems(monkeypatch, SERVICE_AUTH_ISSUER=issuer, SERVICE_AUTH_AUDIENCE="orders")

    assert problem.startswith("SERVICE_AUTH_ISSUER: ")
    assert "must be" in problem


@pytest.mark.parametrize(
    "issuer",
    ["https://a.example/", "https://a.example:8443/x", "http://127.0.0.1:9/x", "http://[::1]/", "http://localhost"],
)
def test_an_issuer_is_kept_as_it_was_given(monkeypatch: pytest.MonkeyPatch, issuer: str) -> None:
    monkeypatch.setenv("SERVICE_AUTH_ISSUER", issuer)
    monkeypatch.setenv("SERVICE_AUTH_AUDIENCE", "orders")

    assert PLATFORM.load()[0].auth_issuer == issuer


@pytest.mark.parametrize("around", ["{}\n", " {} ", "\t{}\r\n"])
def test_blanks_around_a_value_are_none_of_it(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    given = {
        "BIND": "127.0.0.1:8001", "READY_FILE": "/run/ready", "LOG_LEVEL": "debug", "ONE_CPU": "true",
        "MAX_REQUESTS": "7", "DATABASE_URL": "postgresql://a:b@c/d", "MIGRATION_GRANT_TO": "app",
        "AUTH_ISSUER": "https://login.example.org/", "AUTH_AUDIENCE": "orders", "AUTH_CLIENT_ID": "web",
        "AUTH_CLIENT_SECRET": "a secret",
    }  # fmt: skip
    read = []
    for form in ("{}", around):
        for name, value in given.items():
            monkeypatch.setenv(f"SERVICE_{name}", form.format(value))
        read.append(PLATFORM.load()[0])

    assert read[0] == read[1]
    assert read[0].auth_audience == "orders"


@pytest.mark.parametrize("name", ["AUTH_AUDIENCE", "AUTH_CLIENT_ID", "AUTH_CLIENT_SECRET", "MIGRATION_GRANT_TO"])
def test_blanks_alone_are_no_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (problem,) = problems(monkeypatch, **{f"SERVICE_{name}": " \n"})
    monkeypatch.delenv(f"SERVICE_{name}")
    (tmp_path / f"SERVICE_{name}").write_text("\n")
    (of_file,) = problems(monkeypatch, SERVICE_SECRETS_DIR=str(tmp_path))

    assert problem == of_file
    assert problem.startswith(f"SERVICE_{name}: ")
    assert "character" in problem


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems(monkeypatch, SERVICE_BNID="x", SERVICE_MAX_REQUESTS="0", SERVICE_LOG_LEVEL="loud")

    assert [line.split(":")[0] for line in found] == ["SERVICE_BNID", "SERVICE_MAX_REQUESTS", "SERVICE_LOG_LEVEL"]


def test_a_wrong_database_address_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems(monkeypatch, SERVICE_DATABASE_URL="mysql://me:hunter2@h/db")

    assert found == ["SERVICE_DATABASE_URL: must look like postgresql://user:password@host:5432/name"]


@pytest.mark.parametrize("name", ["UNRELATED_THING", "VERSION", "ID", "URL", "NAME", "PORT", "REGION", "HOST", "LEVEL"])
def test_an_unknown_name_that_resembles_nothing_is_only_a_warning(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"SERVICE_{name}", "1")
    PLATFORM.load()

    assert PLATFORM.unknown_names() == [f"SERVICE_{name}"]


@pytest.mark.parametrize(
    ("bytes_", "problem"),
    [
        (b"SERVICE_REVISION=a\nSERVICE_LOG_LEVEL=\xe9t\xe9\n", ".env:2: is not UTF-8; save the file in that encoding"),
        (
            b"\xef\xbb\xbfSERVICE_REVISION=a\r\n",
            ".env:1: begins with a byte order mark, as a part of the first name; save the file without it",
        ),
        (b"\nSERVICE_REVISION='open\n", ".env:2: cannot be read; write NAME=value, and close each quote"),
        (
            b"SERVICE_DATABASE_URL='postgresql://me:a${hunter2}b@host/db'\n",
            ".env:1: SERVICE_DATABASE_URL holds the ${} of a name that is set nowhere; a value that has that itself "
            "belongs into the environment or a file of secrets",
        ),
        (
            b"service_revision=${LATER}\nLATER=a\n",
            ".env:1: SERVICE_REVISION holds the ${} of a name that is set nowhere; a value that has that itself "
            "belongs into the environment or a file of secrets",
        ),
        (b"SERVICE_REVISION=a\nnonsense here\n", ".env:2: cannot be read; write NAME=value, and close each quote"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, bytes_: bytes, problem: str
) -> None:
    Path(".env").write_bytes(bytes_)

    assert problems(monkeypatch) == [problem]


def test_what_a_file_refers_to_is_what_is_meant_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PART", "1")
    Path(".env").write_text("BEFORE=2\nSERVICE_REVISION=a$b-${PART}-${BEFORE}-${ABSENT:-3}\nOTHER=${ABSENT}\n")

    assert PLATFORM.load()[0].revision == "a$b-1-2-3"


def test_what_a_file_refers_to_may_be_nowhere_where_the_environment_has_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVICE_REVISION", "given")
    Path(".env").write_text("service_revision=${ABSENT}\n")

    assert PLATFORM.load()[0].revision == "given"


def test_bytes_that_are_no_text_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, SERVICE_REVISION=os.fsdecode(b"caf\xe9")) == ["SERVICE_REVISION: is not UTF-8"]


def test_a_variable_that_is_no_setting_may_have_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LS_COLORS", os.fsdecode(b"caf\xe9"))

    PLATFORM.load()


def test_a_name_without_a_value_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_REVISION", "")
    Path(".env").write_text("SERVICE_BIND=\nSERVICE_BNID=\n")
    _, origins = PLATFORM.load()

    assert (origins["SERVICE_REVISION"], origins["SERVICE_BIND"]) == ("default", "default")


@pytest.mark.parametrize(
    ("endpoint", "disabled", "wanted"),
    [
        ("", "", False),
        ("http://collector:4318", "", True),
        ("http://collector:4318", "TRUE", False),
        ("", "false", False),
    ],
)
def test_traces_are_wanted_where_an_endpoint_is_named_and_they_are_not_disabled(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, disabled: str, wanted: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_SDK_DISABLED", disabled)

    assert traces_wanted() is wanted


def test_the_file_may_say_where_the_secrets_are(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "SERVICE_REVISION").write_text("4c1d2e7\n")
    Path(".env").write_text(f"SERVICE_SECRETS_DIR={tmp_path}/secrets\n")
    settings, origins = PLATFORM.load()

    assert (settings.revision, origins["SERVICE_REVISION"]) == ("4c1d2e7", "file in SERVICE_SECRETS_DIR")
    assert PLATFORM.unknown_names() == []


def test_each_secret_that_cannot_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SERVICE_REVISION").mkdir()
    (tmp_path / "SERVICE_DATABASE_URL").write_bytes(b"postgresql://a:\xe9@b/c")
    (tmp_path / "..data").mkdir()  # as Kubernetes mounts them
    (tmp_path / "SERVICE_BIND").write_bytes(b"\xef\xbb\xbf127.0.0.1:1\n")
    (tmp_path / "SERVICE_LOG_LEVEL").write_bytes(b"debug\0")
    os.mkfifo(tmp_path / "SERVICE_LOG_FORMAT")  # it must not be waited for
    with (tmp_path / "SERVICE_MAX_REQUESTS").open("wb") as huge:
        huge.truncate(1 << 40)
    (tmp_path / "SERVICE_ONE_CPU").symlink_to("gone")
    found = problems(monkeypatch, SERVICE_SECRETS_DIR=str(tmp_path))

    assert found == [
        f"SERVICE_SECRETS_DIR: {tmp_path}/SERVICE_BIND: begins with a byte order mark; save the file without it",
        f"SERVICE_SECRETS_DIR: {tmp_path}/SERVICE_DATABASE_URL: is not UTF-8",
        f"SERVICE_SECRETS_DIR: {tmp_path}/SERVICE_LOG_FORMAT: is no regular file",
        f"SERVICE_SECRETS_DIR: {tmp_path}/SERVICE_LOG_LEVEL: holds a NUL, which ends a text for libpq and others",
        f"SERVICE_SECRETS_DIR: {tmp_path}/SERVICE_MAX_REQUESTS: is larger than 1 MiB",
        f"SERVICE_SECRETS_DIR: {tmp_path}/SERVICE_ONE_CPU: cannot be read: No such file or directory",
        f"SERVICE_SECRETS_DIR: {tmp_path}/SERVICE_REVISION: cannot be read: Is a directory",
    ]


def test_words_are_words_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOG_LEVEL": "Warning", "LOG_FORMAT": "JSON", "DATABASE_POOLED": "FALSE"}.items():
        monkeypatch.setenv(f"SERVICE_{name}", value)
    settings, _ = PLATFORM.load()

    assert (settings.log_level, settings.log_format, settings.database_pooled) == ("warning", "json", False)


def test_the_environment_wins_over_the_file_and_the_file_over_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("MAX_REQUESTS", "LOG_LEVEL", "DATABASE_URL"):
        value = {"MAX_REQUESTS": "1", "LOG_LEVEL": "error", "DATABASE_URL": "postgres://a:b@c/d"}[name]
        (secrets / f"SERVICE_{name}").write_text(value + "\n")
    Path(".env").write_text("SERVICE_MAX_REQUESTS=2\nSERVICE_LOG_LEVEL=warning\nSERVICE_BIND=\n")
    monkeypatch.setenv("SERVICE_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("SERVICE_MAX_REQUESTS", "3")
    settings, origins = PLATFORM.load()

    assert (settings.max_requests, origins["SERVICE_MAX_REQUESTS"]) == (3, "environment")
    assert (settings.log_level, origins["SERVICE_LOG_LEVEL"]) == ("warning", ".env")
    assert origins["SERVICE_DATABASE_URL"] == "file in SERVICE_SECRETS_DIR"
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://a:b@c/d"
    assert (settings.bind, origins["SERVICE_BIND"]) == ("127.0.0.1:8000", "default")


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_ALLOWED_HOSTS", "example.org, www.example.org,")
    monkeypatch.setenv("SERVICE_TRUSTED_PROXIES", "10.1.2.3/8,::1,::ffff:192.0.2.0/120,::ffff:192.0.2.1,::/0")
    settings, _ = PLATFORM.load()

    assert settings.allowed_hosts == ("example.org", "www.example.org")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1/128", "192.0.2.0/24", "192.0.2.1/32", "::/0")


class Account(BaseModel):
    name: str
    most: int = 1


class Login(BaseModel):
    user: str
    password: SecretStr


class WithParts(FeatureSettings):
    hosts: tuple[str, ...] = Field((), description="Which.")
    codes: list[int] | None = Field(None, description="Which.")
    words: frozenset[str] = Field(frozenset({"b", "a"}), description="Which.")
    keys: tuple[SecretStr, ...] = Field((), description="Which.")
    limits: dict[str, int] = Field({}, description="Which.")
    account: Account = Field(Account(name="free"), description="Which.")
    accounts: list[Account] = Field([], description="Which.")
    logins: dict[str, Login] = Field({}, description="Which.")


PARTS = Catalogue(PlatformSettings, {"orders": WithParts})


def test_lists_of_a_feature_are_comma_separated_too_and_what_has_names_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOSTS": "one, two,",
        "CODES": "[1, 2]",
        "WORDS": "c",
        "KEYS": "hunter2,hunter3",
        "LIMITS": '{"free": 3}',
        "ACCOUNT": '{"name": "gold", "most": 3}',
        "ACCOUNTS": '[{"name": "one, two"}]',
        "LOGINS": '{"main": {"user": "ada", "password": "hunter2"}}',
    }.items():
        monkeypatch.setenv(f"SERVICE_ORDERS_{name}", value)
    settings, origins = PARTS.load()
    orders = settings.of(WithParts)
    again = dict(line.split(maxsplit=2)[:2] for line in documents.table(settings, origins).splitlines())

    assert (orders.hosts, orders.codes, orders.words) == (("one", "two"), [1, 2], frozenset({"c"}))
    assert [key.get_secret_value() for key in orders.keys] == ["hunter2", "hunter3"]
    assert (orders.limits, orders.account, len(orders.accounts)) == ({"free": 3}, Account(name="gold", most=3), 1)
    assert again["SERVICE_ORDERS_CODES"] == "1,2"
    assert again["SERVICE_ORDERS_LIMITS"] == '{"free":3}'
    assert "hunter" not in str(again)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("CODES", "1,b", "must be a list with commas; 1: input should be a valid integer, unable to parse string"),
        ("LIMITS", "free=3", "'free=3' must be a JSON object"),
        ("LIMITS", '{"free": "x"}', "must be a JSON object; free: input should be a valid integer, unable to parse"),
        ("ACCOUNT", "[]", "[] must be a JSON object"),
        ("ACCOUNT", '{"most": 2}', "must be a JSON object; name: field required"),
        ("ACCOUNTS", '{"name": "a"}', "must be a JSON array"),
        ("KEYS", '["hunter2"', "must be a secret, as a list with commas"),
        ("LOGINS", '{"main": "hunter2"}', "must be a secret, as a JSON object; main: input should be a valid"),
    ],
)
def test_a_part_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str) -> None:
    monkeypatch.setenv(f"SERVICE_ORDERS_{name}", value)
    with pytest.raises(SettingsError) as raised:
        PARTS.load()
    [told] = raised.value.problems

    assert told.startswith(f"SERVICE_ORDERS_{name}: ")
    assert problem in told
    assert "hunter2" not in told


def test_the_documents_show_parts_as_the_environment_gives_them() -> None:
    example, schema = documents.env(PARTS), json.loads(documents.json_schema(PARTS))["properties"]

    assert '# SERVICE_ORDERS_ACCOUNT={"name":"free","most":1}\n' in example
    assert "# SERVICE_ORDERS_WORDS=a,b\n" in example
    assert "Which. (a list with commas)" in example
    assert schema["SERVICE_ORDERS_HOSTS"]["type"] == "string"
    assert schema["SERVICE_ORDERS_ACCOUNT"]["type"] == ["string", "object"]
    assert {"SERVICE_ORDERS_KEYS", "SERVICE_ORDERS_LOGINS"} <= {one.variable for one in documents.secrets(PARTS)}


def test_the_table_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_DATABASE_URL", "postgresql://me@h/db?password=hunter3&sslpassword=hunter4")
    table = documents.table(*PLATFORM.load())

    assert "hunter" not in table
    assert "hunter" not in repr(PLATFORM.load())
    assert "postgresql+psycopg://me@h/db?password=" in table


@pytest.mark.parametrize("value", ["2592000", "1234567", "1234567.25", "0.0001", "0.5", "43200"])
def test_a_number_is_shown_as_people_write_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    class Settings(PlatformSettings):
        patience: Annotated[float, Field(description="Seconds of patience.")] = 1

    monkeypatch.setenv("SERVICE_PATIENCE", value)
    table = documents.table(*catalogue(Settings, []).load())

    assert f"SERVICE_PATIENCE {value} environment" in [" ".join(line.split()) for line in table.splitlines()]


def test_the_bound_of_a_drain_is_the_sum_of_its_parts() -> None:
    assert PlatformSettings(drain_delay=1, drain_spread=2, graceful_timeout=30).drain_bound == 38


@pytest.mark.parametrize(
    ("limit", "descriptors"),
    [("max_websockets", 1), ("max_requests", 1), ("database_connections", 2), ("jobs_concurrency", 2)],
)
def test_each_that_is_let_in_has_descriptors_of_its_own(limit: str, descriptors: int) -> None:
    settings = PlatformSettings()
    one_more = settings.model_copy(update={limit: getattr(settings, limit) + 1})

    assert one_more.most_descriptors - settings.most_descriptors == descriptors


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [("BIND", "BIND", 0), ("BNID", "BIND", 1), ("BIN", "BIND", 1), ("BOND", "BIND", 1), ("", "BIND", 4)],
)
def test_edit_distance(left: str, right: str, distance: int) -> None:
    assert edit_distance(left, right) == edit_distance(right, left) == distance


class Shapes(BaseSettings):
    """A field of each kind that people write."""

    both: int = Field(1, gt=0, lt=10)
    mixed: float = Field(0.5, ge=0, lt=1)
    above: Annotated[float, Field(gt=0)] = 1
    least: PositiveInt | None = Field(None, description="Only with a bound inside of the union.")
    inside: Annotated[int, Field(ge=1, le=9)] | None = None
    optional: int | None = Field(None, ge=1)
    most: float = Field(1, le=10)
    any_number: int = 1
    key: SecretStr
    hint: SecretStr | None = Field(None, min_length=8)
    name: str = "x"
    code: str = Field("ab", min_length=2, max_length=2, examples=["de"])
    short: str = Field("a", max_length=64)
    folder: Path = Path("/tmp")
    word: Literal["a", "b"] | None = None
    switch: bool | None = None


@pytest.mark.parametrize(
    ("field", "range_"),
    [
        ("both", "a whole number above 0 and below 10"),
        ("mixed", "a number from 0 and below 1"),
        ("above", "a number above 0"),
        ("least", "a whole number above 0"),
        ("inside", "a whole number from 1 to 9"),
        ("optional", "a whole number from 1"),
        ("most", "a number up to 10"),
        ("any_number", "a whole number"),
        ("key", "a secret"),
        ("hint", "a secret of at least 8 characters"),
        ("name", "a text"),
        ("code", "a text of 2 characters, such as de"),
        ("short", "a text of up to 64 characters"),
        ("folder", "a path"),
        ("word", "one of a, b"),
        ("switch", "true or false"),
    ],
)
def test_a_range_is_told_in_words(field: str, range_: str) -> None:
    assert describe_range(Shapes.model_fields[field]) == range_


def test_a_secret_that_has_a_default_is_left_empty_in_the_example() -> None:
    class WithDefault(FeatureSettings):
        token: SecretStr = Field(SecretStr("hunter2"), description="For trying out.")

    example = documents.env(Catalogue(Settings, {"orders": WithDefault}))

    assert "# SERVICE_ORDERS_TOKEN=\n" in example + "\n"


def test_the_schema_of_an_optional_number_takes_a_number_and_knows_its_bounds() -> None:
    class Optional(FeatureSettings):
        limit: int | None = Field(None, gt=0, lt=10, description="The most.")

    schema = json.loads(documents.json_schema(Catalogue(Settings, {"orders": Optional})))
    limit = schema["properties"]["SERVICE_ORDERS_LIMIT"]

    assert (limit["type"], limit["exclusiveMinimum"], limit["exclusiveMaximum"]) == ("integer", 0, 10)


@pytest.mark.parametrize("variable", KNOWN.variables)
def test_every_setting_has_a_reason_and_a_range(variable: str) -> None:
    info = KNOWN.find(variable).info

    assert (info.description or "").endswith(".")
    assert "None" not in describe_range(info)


def test_the_readme_has_the_table_of_settings() -> None:
    page = template_page("README.md")
    if "<!-- settings: made by" in (text := page.read_text() if page.exists() else ""):
        assert documents.markdown(KNOWN) in text, "run: make generate"


def test_the_example_environment_is_current() -> None:
    assert documents.env(KNOWN) + "\n" == (ROOT / ".env.example").read_text(), "run: make generate"
