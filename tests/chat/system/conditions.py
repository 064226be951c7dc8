"""What a database can be like for a while under a running chat, and the way there and back, as plain SQL."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from service.platform.testing.own_server import OwnServer

PASSWORD = "right"

# The epoch is read by every task and every unit of the chat: as a view that raises, all of them meet the state.
RAISE = """
    ALTER TABLE chat_epoch RENAME TO epoch_away;
    CREATE FUNCTION refuse() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '{state}'; END $$;
    CREATE VIEW chat_epoch AS SELECT refuse() AS epoch;
    GRANT SELECT ON chat_epoch TO app"""
RAISE_NO_MORE = "DROP VIEW chat_epoch; DROP FUNCTION refuse; ALTER TABLE epoch_away RENAME TO chat_epoch"
TABLES = "chat_room, chat_message, chat_epoch, schema_state"
END_SESSIONS = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'app'"


class World:
    """A server on which the chat is a role of its own, with a password and no more rights than it needs."""

    def __init__(self, server: OwnServer, password_file: Path) -> None:
        self.server = server
        self.password_file = password_file
        self.write_password()
        self.holder: psycopg.Connection | None = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://app@127.0.0.1:{self.server.port}/postgres"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self.server.data), port=self.server.port, user="postgres", autocommit=True)

    def execute(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def prepare(self) -> None:
        (self.server.data / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
        self.execute(
            f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app",
            "SELECT pg_reload_conf()",
        )

    def write_password(self) -> None:
        self.password_file.write_text(PASSWORD)

    def spoil_password(self) -> None:
        self.password_file.write_bytes(b"\xff\xfe")
        self.execute(END_SESSIONS)

    def lock(self) -> None:
        self.holder = self.connect()
        self.holder.autocommit = False
        self.holder.execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE".encode())

    def unlock(self) -> None:
        assert self.holder is not None
        self.holder.close()


@dataclass(frozen=True)
class Condition:
    name: str
    begin: Callable[[World], object]
    end: Callable[[World], object]
    sends: bool = False  # whether sends go on
    reads: bool = False


def sql(name: str, begin: str, end: str, *, sends: bool = False, reads: bool = False) -> Condition:
    return Condition(
        name, lambda world: world.execute(begin), lambda world: world.execute(end), sends=sends, reads=reads
    )


def logins(name: str, begin: str, end: str) -> Condition:
    """Return one that holds for new sessions: the old are ended."""
    return Condition(name, lambda world: world.execute(begin, END_SESSIONS), lambda world: world.execute(end))


def raising(state: str) -> Condition:
    return sql(f"{state} raised", RAISE.format(state=state), RAISE_NO_MORE)


CONDITIONS = (
    sql("42P01 table away", "ALTER TABLE chat_room RENAME TO away", "ALTER TABLE away RENAME TO chat_room"),
    sql(
        "42703 column away",
        "ALTER TABLE chat_message RENAME COLUMN text TO away",
        "ALTER TABLE chat_message RENAME COLUMN away TO text",
    ),
    sql("42501 rights taken", f"REVOKE ALL ON {TABLES} FROM app", f"GRANT ALL ON {TABLES} TO app"),
    sql("empty tables, as in a restore", "CREATE TABLE kept AS TABLE chat_epoch; DELETE FROM chat_epoch",
        "INSERT INTO chat_epoch SELECT * FROM kept; DROP TABLE kept"),
    Condition("tables locked", World.lock, World.unlock),
    logins("53300 connection limit", "ALTER ROLE app CONNECTION LIMIT 0", "ALTER ROLE app CONNECTION LIMIT -1"),
    logins("28P01 wrong password", "ALTER ROLE app PASSWORD 'other'", f"ALTER ROLE app PASSWORD '{PASSWORD}'"),
    logins("28000 may not log in", "ALTER ROLE app NOLOGIN", "ALTER ROLE app LOGIN"),
    Condition("password file is no UTF-8", World.spoil_password, World.write_password),
    sql("57P01 sessions ended", END_SESSIONS, "SELECT 1", sends=True, reads=True),
    Condition(
        "read only by default",
        lambda world: world.execute("ALTER ROLE app SET default_transaction_read_only = on", END_SESSIONS),
        lambda world: world.execute("ALTER ROLE app RESET default_transaction_read_only"),
        reads=True,
    ),
    Condition(
        "25006 a standby",
        lambda world: world.server.become_standby(),
        lambda world: world.server.promote(),
        reads=True,
    ),
    *map(raising, ("08006", "22012", "25001", "53100", "53200", "54000", "55P03", "57014", "58030", "P0001", "XX000")),
)  # fmt: skip
