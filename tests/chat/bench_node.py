"""A message to a room of 100, beside `ws` and `pg` on Node: what it costs the server's process, at equal durability.

`python -m tests.chat.bench node` wants `node` and `npm`, which gets the two packages into a folder of its own.
"""

import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.clients import Members
from bench.measure import settled_cpu_seconds
from service.platform.testing.own_server import free_port
from tests.platform.database.observer import conninfo

MEMBERS, MESSAGES, ROUNDS = 100, 400, 9
TEXT = b"x" * 60
ON_THEIR_WAY = (1, 2, 8)  # messages at the same time
TABLES = """
CREATE TABLE node_room (name text PRIMARY KEY, seq bigint NOT NULL);
CREATE TABLE node_message (room text, seq bigint, id text, author text, text text, at timestamptz DEFAULT now(),
    PRIMARY KEY (room, seq), UNIQUE (room, id));
INSERT INTO node_room VALUES ('lobby', 0)"""

# What ours does for a message, one after the other: a look for a repeat, the room's next seq, the row, a NOTIFY; and
# everything in one statement, without a look for repeats, which is the best that this way can do.
NODE = """
const { WebSocketServer } = require("ws"), { Pool } = require("pg"), { randomUUID } = require("crypto");
const [port, database, form] = process.argv.slice(2);
const pool = new Pool({ connectionString: database, max: 8 });
const server = new WebSocketServer({ host: "127.0.0.1", port: +port, perMessageDeflate: false });
const ask = (client, name, text, ...values) => client.query({ name, text, values });
async function store(text) {
  const id = randomUUID();
  if (form === "one")
    return ask(pool, "all", `WITH advanced AS (UPDATE node_room SET seq = seq + 1 WHERE name = 'lobby' RETURNING seq),
      told AS (SELECT pg_notify('node', 'lobby:' || seq) FROM advanced)
      INSERT INTO node_message (room, seq, id, author, text) SELECT 'lobby', seq, $1, 'a', $2 FROM advanced, told`,
      id, text);
  const client = await pool.connect();
  try {
    await ask(client, "known", "SELECT seq, text FROM node_message WHERE room = $1 AND id = $2", "lobby", id);
    await client.query("BEGIN");
    const advanced = "UPDATE node_room SET seq = seq + 1 WHERE name = $1 RETURNING seq";
    const [{ seq }] = (await ask(client, "advanced", advanced, "lobby")).rows;
    const row = "INSERT INTO node_message (room, seq, id, author, text) VALUES ($1, $2, $3, $4, $5)";
    await ask(client, "row", row, "lobby", seq, id, "a", text);
    await ask(client, "told", "SELECT pg_notify('node', $1)", `lobby:${seq}`);
    await client.query("COMMIT");
  } finally {
    client.release();
  }
}
server.on("connection", (one) => {
  one.on("error", () => {});
  one.on("message", async (data) => {
    const text = data.toString();
    await store(text);
    for (const other of server.clients) if (other !== one && other.readyState === other.OPEN) other.send(text);
  });
});
"""


@contextmanager
def node(directory: Path, url: str, form: str) -> Iterator[tuple[int, int]]:
    """Yield the pid and the port of the server on Node."""
    port = free_port()
    process = subprocess.Popen(["node", "server.js", str(port), url, form], cwd=directory)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def cost(pid: int, port: int, on_their_way: int) -> float:
    """Return the processor time of a message in microseconds, with so many at the same time."""
    room = Members(port, MEMBERS)
    time.sleep(0.5)  # until all have joined
    deliver(room, 40, on_their_way)
    before = settled_cpu_seconds(pid)
    deliver(room, MESSAGES, on_their_way)
    took = settled_cpu_seconds(pid) - before
    room.close()
    return took / MESSAGES * 1e6


def deliver(room: Members, messages: int, on_their_way: int) -> None:
    for _ in range(messages // on_their_way):
        for _ in range(on_their_way):
            room.send(TEXT)
        room.receive(on_their_way * (MEMBERS - 1) * (len(TEXT) + 2))


def measure(url: str, directory: Path, ours: tuple[int, int], tell: Callable[[str], None]) -> None:
    """Compare with the service whose pid and port are given, by turns."""
    subprocess.run(["npm", "install", "--silent", "ws@8", "pg@8"], cwd=directory, check=True)
    (directory / "server.js").write_text(NODE)
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        connection.execute(TABLES)
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    with node(directory, plain, "each") as each, node(directory, plain, "one") as one:
        for on_their_way in ON_THEIR_WAY:
            found = [[cost(*where, on_their_way) for where in (ours, each, one)] for _ in range(ROUNDS)]
            for column, form in ((1, "statement after statement"), (2, "one statement, no look for repeats")):
                ratios = [row[0] / row[column] for row in found]
                us, them = (statistics.median(row[which] for row in found) for which in (0, column))
                tell(
                    f"a message to {MEMBERS}, {on_their_way} on their way: {statistics.median(ratios):.2f}x"
                    f" ({min(ratios):.2f} to {max(ratios):.2f}) Node's processor time, {form}: {us:.0f}/{them:.0f} us"
                )
