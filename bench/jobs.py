"""What jobs cost, beside procrastinate and pgqueuer: empty ones, enqueued and run, ten at once.

`python -m bench jobs`: each side is a process with a database of its own on the same server, in turns. It enqueues, a
thousand at once or each alone by ten tasks, while its worker runs. Jobs per second of processor time are compared, of
enqueue and run together.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import psycopg
from sqlalchemy import make_url

from bench.measure import show
from bench.postgres import plain
from service.platform.database import Embedded, open_embedded

JOBS, ROUNDS = 5_000, 5
STARTS, IDLE = 40, 30  # jobs; seconds
SIDES = {
    "ours": "jobs_ours",
    "ours, SQL": "jobs_ours",
    "procrastinate": "jobs_procrastinate",
    "pgqueuer": "jobs_pgqueuer",
    "pgqueuer, batches of 100": "jobs_pgqueuer",
}
PARTS = ("many", "singly")
WIDE = "pgqueuer, batches of 100"  # more at once than ten; its own default is ten
SLOW = "procrastinate"  # by so much that it takes part in the first round alone
OTHERS = [side for side in SIDES if not side.startswith("ours")]
Told = dict[str, float]


def run(server: Embedded, side: str, task: str, count: int) -> Told:
    """Have one side do its task in a new database, and return what it tells."""
    with psycopg.connect(plain(server.url, "postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS jobs WITH (FORCE)")
        connection.execute("CREATE DATABASE jobs")
        url = make_url(server.url).set(database="jobs").render_as_string(hide_password=False)
        words = [url, str(server.pid), side, task, str(count)]
        command = [sys.executable, "-m", f"bench.apps.{SIDES[side]}", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
        connection.execute("CHECKPOINT")  # what one side has written is not for the next to wait for
    told: Told = json.loads(done.stdout)
    return told


def throughput(rounds: list[dict[str, Told]]) -> None:
    """Print jobs per second of processor time, ours to the better of the others."""
    ten = [side for side in OTHERS if side != WIDE]
    _compare(rounds, "async jobs, ten at once", ("ours", "many"), ten, 2.0)
    _compare(rounds, "async jobs, to pgqueuer's 100 at once", ("ours", "many"), [WIDE])
    _compare(rounds, "async jobs, each enqueued alone", ("ours", "singly"), ten)
    _compare(rounds, "SQL jobs, a transaction each", ("ours, SQL", "many"), ten)
    for side in SIDES:
        parts = {
            part: median(told[side][part] for told in rounds if side in told) / JOBS * 1e6 for part in rounds[0][side]
        }
        words = [f"{part} {parts[part]:.0f} µs (PostgreSQL {parts[f'{part}, PostgreSQL']:.0f})" for part in PARTS]
        print(f"  {side}: {', '.join(words)}", flush=True)


def _compare(
    rounds: list[dict[str, Told]], name: str, ours: tuple[str, str], others: list[str], wanted: float | None = None
) -> None:
    """Compare what the processor of a side does, and what both it and PostgreSQL's do, to the better of others."""
    side, part = ours
    for words, parts in (("", [part]), (", and PostgreSQL's", [part, f"{part}, PostgreSQL"])):
        ratios = []
        for told in rounds:
            cost = {one: sum(told[one][each] for each in parts) for one in (side, *others) if one in told}
            ratios.append(min(spent for one, spent in cost.items() if one != side) / cost[side])
        show(name + words, (median(ratios), ratios), None if words else wanted)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        open_embedded(Path(directory) / "data", durable=False) as server,
    ):
        order = list(SIDES)
        rounds = []
        for number in range(ROUNDS):
            turn = order[number:] + order[:number]
            rounds.append({side: run(server, side, "run", JOBS) for side in turn if not number or side != SLOW})
        throughput(rounds)
        for side in ("ours", "procrastinate", "pgqueuer"):
            starts = run(server, side, "start", STARTS)["p50"]
            idle = run(server, side, "idle", IDLE)["transactions a minute"]
            print(f"  {side}: starts {starts * 1e3:.1f} ms after the enqueue; idle, {idle:.0f} transactions a minute")


if __name__ == "__main__":
    main()
