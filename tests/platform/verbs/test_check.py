"""The doctor, `service check`, as an operator runs it."""

import os
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
import trio

from service.platform.database import metadata
from service.platform.database.migrate import migrate
from service.platform.testing.fixtures import waits_for_a_schema
from service.platform.testing.issuer import AUDIENCE, CLIENT, open_issuer
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import SERVICE, ready, run_to_end
from service.platform.testing.settings import settings_of
from service.platform.verbs import Program
from service.platform.verbs.check import findings
from tests.platform.database.observer import conninfo
from tests.platform.upgrades import settings_for


def lines(output: str) -> dict[str, str]:
    return {line.split()[1]: line for line in output.splitlines()}


def test_all_is_well(tmp_path: Path, database_url: str) -> None:
    done = run_to_end(tmp_path, "check", database_url=database_url, bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    found = lines(done.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(found) == [
        "settings", "bind", "management", "descriptors", "identity", "database", "version", "connections", "rights",
        "schema", "ceilings", "session", "clock",
    ]  # fmt: skip
    assert not [line for line in found.values() if line.startswith("FAIL")]
    assert "off: everybody is a guest" in found["identity"]
    assert "PostgreSQL" in found["version"]


def test_a_name_that_is_no_setting_is_told(tmp_path: Path, database_url: str) -> None:
    done = run_to_end(tmp_path, "check", database_url=database_url, trusted_proxy="10.0.0.0/8")
    found = lines(done.stdout)["settings"]

    assert (found[:4], found.partition("; ")[2]) == ("warn", "no settings, and ignored: SERVICE_TRUSTED_PROXY")


def test_an_address_that_is_no_host_name_is_a_failure(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "check", bind="a..b:8000", management_bind="127.0.0.1:0")

    told = "a..b:8000 cannot be used: it is no host name; choose another SERVICE_BIND"
    assert (done.returncode, lines(done.stdout)["bind"]) == (1, f"{'FAIL':<5} {'bind':<12} {told}")


def test_connections_of_jobs_are_counted(tmp_path: Path, database_url: str) -> None:
    done = run_to_end(
        *(tmp_path, "check"),
        command=(sys.executable, "-m", "tests.platform.jobs.worker_program"),
        database_url=database_url, database_connections=4, jobs_concurrency=7,
    )  # fmt: skip

    assert f"{4 + 2 + 7 + 3} for each replica" in lines(done.stdout)["connections"], done.stdout + done.stderr


def test_each_failure_says_what_to_do(tmp_path: Path, empty_database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_to_end(
            *(tmp_path, "check"),
            command=("prlimit", "--nofile=1000", *SERVICE),
            database_url=empty_database_url, bind=bind, max_websockets=1_000,
        )  # fmt: skip
    found = lines(done.stdout)

    assert done.returncode == 1
    assert found["bind"].startswith("FAIL")
    assert "is taken; choose another SERVICE_BIND" in found["bind"]
    assert found["descriptors"].startswith("warn")
    assert "ulimit -n" in found["descriptors"]


@waits_for_a_schema
def test_a_schema_that_is_behind_says_what_to_do(tmp_path: Path, empty_database_url: str) -> None:
    found = lines(run_to_end(tmp_path, "check", database_url=empty_database_url, bind="127.0.0.1:0").stdout)

    assert found["schema"].startswith("FAIL")
    assert "run `service migrate`" in found["schema"]


def test_a_database_that_is_away_is_a_failure_without_a_password(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "check", database_url="postgresql://me:hunter2@127.0.0.1:1/db", bind="127.0.0.1:0")

    assert done.returncode == 1
    assert lines(done.stdout)["database"].startswith("FAIL")
    assert "hunter2" not in done.stdout + done.stderr


def test_the_way_past_the_pooler_is_tried_too(tmp_path: Path, database_url: str) -> None:
    here = {"database_url": database_url, "bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    away = run_to_end(tmp_path, "check", database_direct_url="postgresql://me:hunter2@127.0.0.1:1/db", **here)
    well = run_to_end(tmp_path, "check", database_direct_url=database_url, **here)

    assert away.returncode == 1, away.stdout + away.stderr
    assert lines(away.stdout)["database"].startswith("ok")
    assert lines(away.stdout)["direct"].startswith("FAIL")
    assert "is SERVICE_DATABASE_DIRECT_URL right" in lines(away.stdout)["direct"]
    assert "hunter2" not in away.stdout + away.stderr
    assert well.returncode == 0, well.stdout + well.stderr
    assert lines(well.stdout)["direct"].startswith("ok    direct       answers after ")


def test_no_address_names_the_setting(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "check", bind="127.0.0.1:0")

    assert (done.returncode, "SERVICE_DATABASE_URL" in done.stdout) == (1, True)


async def test_beside_the_running_service_its_own_ports_are_no_failure(tmp_path: Path, database_url: str) -> None:
    host = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # no other test's
    binds = {"bind": f"{host}:18001", "management_bind": f"{host}:19001"}
    async with ready(tmp_path, "serve", database_url=database_url, revision="4c1d2e7", **binds):
        check = partial(run_to_end, tmp_path, "check", database_url=database_url)
        inside = await trio.to_thread.run_sync(partial(check, **binds))
        beside = await trio.to_thread.run_sync(partial(check, bind=binds["bind"], management_bind="127.0.0.1:0"))
    found = lines(inside.stdout)

    assert inside.returncode == 0, inside.stdout + inside.stderr
    assert "revision 4c1d2e7, which is ready, the service that runs here" in found["management"]
    assert found["bind"].startswith("ok")
    assert beside.returncode == 1  # somebody else's: this one would have another management listener
    assert lines(beside.stdout)["bind"].startswith("FAIL")


def test_a_port_that_something_else_has_is_a_failure(tmp_path: Path, database_url: str) -> None:
    page = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = Thread(target=page.serve_forever)
    thread.start()
    bind = f"127.0.0.1:{page.server_port}"
    done = run_to_end(tmp_path, "check", database_url=database_url, bind="127.0.0.1:0", management_bind=bind)
    page.shutdown()
    thread.join()
    page.server_close()

    assert done.returncode == 1
    assert lines(done.stdout)["management"].startswith("FAIL")


async def of_identity(program: Program, **settings: Any) -> dict[str, str]:
    """Return what the verb would print; in this process, as it takes most of a second to start one."""
    given = settings_of(program.catalogue, bind="127.0.0.1:0", management_bind="127.0.0.1:0", **settings)
    return lines("\n".join(map(str, await findings(given, unknown=(), has_jobs=False))))


async def test_what_is_found_of_an_identity_provider(program: Program) -> None:
    async with open_issuer() as issuer:
        on = {"auth_issuer": issuer.url, "auth_audience": AUDIENCE}
        client = {"auth_client_id": CLIENT, "auth_client_secret": issuer.secret}
        tokens_only = await of_identity(program, **on)
        hosts = {"allowed_hosts": "a.example", "trusted_proxies": "10.0.0.0/8"}
        browsers = await of_identity(program, **on, **client, **hosts)
        by_http = await of_identity(program, **on, auth_client_id=CLIENT)
        other = await of_identity(program, **on, auth_algorithms="RS256")
        slash = await of_identity(program, **on | {"auth_issuer": issuer.url + "/"})
        issuer.odd = {"require_pushed_authorization_requests": True}
        pushed = await of_identity(program, **on, **client)
        issuer.away = True
        away = await of_identity(program, **on, **client)

    assert tokens_only["identity"].startswith(f"ok    identity     {issuer.url} answers after ")
    assert tokens_only["identity"].endswith("has 2 of 2 keys for tokens")
    assert tokens_only["audience"].endswith(AUDIENCE)
    assert "off for browsers" in tokens_only["sign-in"]
    assert "redirect" not in tokens_only
    assert browsers["sign-in"] == f"ok    sign-in      at {issuer.url}/authorize as {CLIENT}, with its secret"
    assert browsers["redirect"] == "ok    redirect     https://a.example/auth/callback"
    assert by_http["sign-in"].endswith("public, without a secret")
    assert by_http["redirect"].startswith("warn  redirect     /auth/callback at each host that people use; SERVICE_TRU")
    assert other["identity"].startswith("FAIL")
    assert "SERVICE_AUTH_ALGORITHMS needs one of theirs: ES256" in other["identity"]
    assert slash["identity"].startswith("FAIL")
    assert f"is of the issuer '{issuer.url}', not '{issuer.url}/'" in slash["identity"]
    assert pushed["sign-in"].startswith("FAIL")
    assert "/authorize takes pushed authorization requests alone (PAR)" in pushed["sign-in"]
    for line in (away["identity"], away["sign-in"]):
        assert line.startswith("FAIL")
        assert "answers 503" in line
    assert issuer.secret not in str([tokens_only, browsers, away])


@waits_for_a_schema
@pytest.mark.parametrize(
    ("taken", "line"),
    [
        ("SELECT ON schema_state", "FAIL  schema       permission denied for table schema_state"),
        ("INSERT, DELETE ON {table}", "warn  tables       no insert, delete on {table}; GRANT"),
        ("USAGE ON SCHEMA public", "FAIL  schema       the role may use no schema; GRANT USAGE"),
    ],
    ids=["state", "table", "schema"],
)
def test_a_right_that_lacks_is_one_line(tmp_path: Path, one_server: OwnServer, taken: str, line: str) -> None:
    migrate(settings_for(one_server.tcp_url))
    table = next(iter(metadata.tables), "schema_state")
    with psycopg.connect(conninfo(one_server.tcp_url), autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        connection.execute("GRANT USAGE ON SCHEMA public TO app; REVOKE USAGE ON SCHEMA public FROM public")
        connection.execute(f"REVOKE {taken.format(table=table)} FROM app".encode())
        url = one_server.tcp_url.replace("postgres@", "app@")
        done = run_to_end(tmp_path, "check", database_url=url, bind="127.0.0.1:0", management_bind="127.0.0.1:0")
        connection.execute("DROP OWNED BY app")

    assert [one for one in done.stdout.splitlines() if one.startswith(line.format(table=table))], done.stdout
    assert done.returncode == line.startswith("FAIL")
    assert done.stderr == ""


@waits_for_a_schema
def test_a_schema_whose_migrations_were_all_taken_back_is_behind(tmp_path: Path, one_server: OwnServer) -> None:
    migrate(settings_for(one_server.tcp_url))
    with psycopg.connect(conninfo(one_server.tcp_url), autocommit=True) as connection:
        connection.execute("DELETE FROM schema_state")  # as Alembic's downgrade to base does
    found = lines(run_to_end(tmp_path, "check", database_url=one_server.tcp_url, bind="127.0.0.1:0").stdout)

    assert found["schema"].startswith("FAIL  schema       the schema is at nothing yet, this code needs"), found


@waits_for_a_schema
def test_a_right_that_lacks_in_a_schema_whose_name_wants_quotes_is_told(tmp_path: Path, one_server: OwnServer) -> None:
    with psycopg.connect(conninfo(one_server.tcp_url), autocommit=True) as connection:
        connection.execute("""CREATE ROLE app LOGIN; ALTER ROLE app SET search_path = "Of-App"; CREATE SCHEMA "Of-App";
            GRANT USAGE ON SCHEMA "Of-App" TO app""")
        migrate(settings_for(f"{one_server.tcp_url}?options=-csearch_path%3D%22Of-App%22"))
        connection.execute('GRANT SELECT ON ALL TABLES IN SCHEMA "Of-App" TO app')
        url = one_server.tcp_url.replace("postgres@", "app@")
        done = run_to_end(tmp_path, "check", database_url=url, bind="127.0.0.1:0", management_bind="127.0.0.1:0")
        connection.execute('DROP OWNED BY app; DROP SCHEMA "Of-App" CASCADE')

    assert "no insert, update, delete on job; GRANT" in lines(done.stdout)["tables"], done.stdout


@waits_for_a_schema
def test_rows_that_a_policy_hides_are_told(tmp_path: Path, one_server: OwnServer) -> None:
    migrate(settings_for(one_server.tcp_url))
    ports = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    with psycopg.connect(conninfo(one_server.tcp_url), autocommit=True) as connection:
        connection.execute("""CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA public TO app;
            CREATE TABLE of_others (); ALTER TABLE of_others ENABLE ROW LEVEL SECURITY;
            ALTER TABLE job ENABLE ROW LEVEL SECURITY""")
        owner = run_to_end(tmp_path, "check", database_url=one_server.tcp_url, **ports)
        app = run_to_end(tmp_path, "check", database_url=one_server.tcp_url.replace("postgres@", "app@"), **ports)
        connection.execute("DROP OWNED BY app")

    assert "rows" not in lines(owner.stdout)
    assert "of job the role has those alone that a policy lets through" in app.stdout


@waits_for_a_schema
@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "ALTER ROLE app SET search_path = mine; CREATE SCHEMA mine AUTHORIZATION app",
            "FAIL  schema       search_path leads to mine, where nothing is migrated; it is in public; ALTER ROLE",
        ),
        (
            "ALTER ROLE app SET default_transaction_read_only = on",
            "warn  database     the database takes no writes: default_transaction_read_only is on; ",
        ),
        ("ALTER ROLE app CONNECTION LIMIT 3", "FAIL  connections  "),
        ("ALTER DATABASE postgres CONNECTION LIMIT 4", "FAIL  connections  "),
    ],
    ids=["schema", "read-only", "limit of the role", "limit of the database"],
)
def test_what_a_role_was_given_is_told(tmp_path: Path, one_server: OwnServer, given: str, line: str) -> None:
    migrate(settings_for(one_server.tcp_url))
    with psycopg.connect(conninfo(one_server.tcp_url), autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA public TO app")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        connection.execute(given.encode())
        url = one_server.tcp_url.replace("postgres@", "app@")
        done = run_to_end(tmp_path, "check", database_url=url, bind="127.0.0.1:0", management_bind="127.0.0.1:0")
        connection.execute("ALTER DATABASE postgres CONNECTION LIMIT -1; DROP OWNED BY app")

    [found] = [one for one in done.stdout.splitlines() if one.startswith(line)]
    if "LIMIT" in given:
        whose = "role" if "ROLE" in given else "database"
        assert f"of {given[-1]} that the {whose} may have; lower SERVICE_DATABASE_CONNECTIONS" in found
    assert done.returncode == (1 if line.startswith("FAIL") else 0), done.stdout
