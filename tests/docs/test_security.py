"""SECURITY.md: what keeps persons out of PostgreSQL's own log, and what reaches them where they are kept."""

import re
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from service.platform.testing.copies import template_page
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import conninfo, observe

PAGE = template_page("SECURITY.md").read_text()
QUIET = re.findall(r"^SET (log_\w+ = \w+);", PAGE, re.MULTILINE)
[FORGET_JOBS] = re.findall(r"DELETE FROM job WHERE .*SUBJECT.*", PAGE)
REFUSED = (
    ("INSERT INTO person VALUES (2, %s)", ["ada@example.org"]),
    ("INSERT INTO person VALUES (NULL, %s)", ["ada@example.org"]),
    ("INSERT INTO person VALUES (3, %s)", ["ada@example.org" * 9]),
    ("SELECT CAST(CAST(%s AS text) AS json)", ["ada@example.org"]),
)


def test_the_servers_log_quotes_no_row_once_it_is_told_not_to(one_server: OwnServer) -> None:
    log = Path(f"{one_server.data}.log")
    quoted = []
    with observe(one_server.url) as observer:
        connection = observer.connection
        connection.execute("CREATE TABLE person (id int PRIMARY KEY, mail text UNIQUE CHECK (length(mail) < 99))")
        connection.execute("INSERT INTO person VALUES (0, 'ada@example.org')")
        for settings in ([], QUIET):
            for setting in (*settings, "log_min_duration_statement = 0"):
                connection.execute(f"SET {setting}".encode())
            begin = log.stat().st_size
            for statement, values in REFUSED:
                with pytest.raises(psycopg.Error):
                    connection.execute(statement.encode(), values)
            quoted.append(log.read_bytes()[begin:].count(b"ada@"))

    assert quoted[0] >= len(REFUSED)
    assert quoted[1:] == [0]


def test_jobs_that_name_somebody_are_erased_but_for_those_that_are_to_run(writable_database_url: str) -> None:
    states = ("waiting", "done", "dead", "discarded")
    with psycopg.connect(conninfo(writable_database_url), autocommit=True) as connection:
        for state in states:
            for who in ("u-1", "u-12"):
                connection.execute(
                    "INSERT INTO job (kind, arguments, state, finished_at) VALUES ('mail',"
                    " jsonb_build_object('to', jsonb_build_array(%s::text)), %s, %s)",
                    [who, state, None if state == "waiting" else datetime.now(UTC)],
                )
        erased = connection.execute(FORGET_JOBS.replace("SUBJECT", "u-1").encode()).rowcount
        left = connection.execute("SELECT state, arguments->'to'->>0 FROM job ORDER BY id").fetchall()

    assert erased == 3
    assert left == [("waiting", "u-1"), *((state, "u-12") for state in states)]
