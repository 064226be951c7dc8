"""What is counted about jobs, and shown as metrics: what this process ran, and what the table held when asked."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from service.platform.jobs.store import AGAIN, APART
from service.platform.telemetry import Metrics

BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0)


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs of a kind are in a state; `oldest` is the seconds since the first of them was due."""

    kind: str
    state: str
    count: int
    due: int
    oldest: float


def counts(connection: Connection) -> list[Count]:
    """Return what waits, runs and is dead, by kind; what is finished is not counted."""
    return [Count(row.kind, row.state, row.jobs, row.due, row.oldest) for row in connection.execute(_COUNTS)]


_COUNTS = text(
    " UNION ALL ".join(
        f"""SELECT kind, '{state}' AS state, count(*) AS jobs, count(*) FILTER (WHERE run_at <= now()) AS due,
        GREATEST(0, CAST(EXTRACT(epoch FROM now() - min(run_at)) AS float8)) AS oldest
        FROM job WHERE state = '{state}' GROUP BY kind"""  # noqa: S608  constants
        for state in ("waiting", "running", "dead")
    )
)


def rescued_again(connection: Connection) -> Mapping[str, int]:
    """Return by kind how many jobs run, or are to within APART, that have lost two workers or more in a row.

    The row is the only witness of a job that ends whoever runs it: who rescues it may run it next, and be gone before
    anybody asks for a counter. One that has waited for longer than LATELY ends nobody meanwhile, and is not looked for:
    what waits may be very much, and all but its error stands in an index.
    """
    found: Counter[str] = Counter()
    for row in connection.execute(_RESCUED_AGAIN, {"lately": LATELY, "apart": APART}):
        found[row.kind] += row.jobs
    return found


LATELY = 60.0  # seconds
_DUE_LATELY = "AND run_at BETWEEN now() - make_interval(secs => :lately) AND now() + make_interval(secs => :apart)"
_RESCUED_AGAIN = text(
    " UNION ALL ".join(
        f"""SELECT kind, count(*) AS jobs FROM job
        WHERE state = '{state}' AND failures > 1 AND error LIKE '%{AGAIN}' {lately} GROUP BY kind"""  # noqa: S608  constants
        for state, lately in (("waiting", _DUE_LATELY), ("running", ""))
    )
)


class JobStatistics:
    """Plain numbers of one process; kinds come from code, so their number is bounded.

    Those of its kinds are counted from 0: to Prometheus a series that begins at 1 has not risen, and whoever rescues a
    job that kills its workers runs it next, so it is ended before it can count a second.
    """

    def __init__(self, kinds: Iterable[str]) -> None:
        nothing = dict.fromkeys(kinds, 0)
        self.rescued: Counter[str] = Counter(nothing)
        self.lost: Counter[str] = Counter(nothing)  # claims that were taken from this process
        self.table: Sequence[Count] = ()
        self.rescued_again: Mapping[str, int] = {}
        self.missed: Mapping[str, float] = {}  # by schedule, the seconds since the first turn that it has missed
        self.observe_run: Callable[..., None] = lambda *_: None  # seconds, kind, outcome
        self.observe_wait: Callable[..., None] = lambda *_: None  # seconds, kind


def show_jobs(
    metrics: Metrics, seen: JobStatistics, running: Callable[[], int], overdue: Callable[[], Mapping[str, int]]
) -> None:
    metrics.gauge("jobs_in_process", "Jobs that this process is running.", running)
    metrics.gauge("jobs_overdue", "Jobs of this process that do not end at their deadline.", overdue, label="kind")
    metrics.gauge("jobs_waiting", "Jobs that wait, by kind.", lambda: _of(seen, "waiting"), label="kind")
    metrics.gauge("jobs_running", "Jobs that run in the whole cluster.", lambda: _of(seen, "running"), label="kind")
    metrics.gauge("jobs_dead", "Jobs that no retry is left for.", lambda: _of(seen, "dead"), label="kind")
    metrics.gauge("jobs_oldest_seconds", "Since the oldest job was due.", lambda: _oldest(seen), label="kind")
    again = "Jobs to be run whose workers were gone at least twice in a row."
    metrics.gauge(
        "jobs_rescued_again", again, lambda: {**dict.fromkeys(seen.rescued, 0), **seen.rescued_again}, label="kind"
    )
    missed = "Since the first turn that a schedule has missed; 0 where none is."
    metrics.gauge("jobs_turn_missed_seconds", missed, lambda: seen.missed, label="kind")
    metrics.counter("jobs_rescued_total", "Jobs of workers that were gone.", lambda: seen.rescued, label="kind")
    metrics.counter("jobs_lost_total", "Claims that were taken from this process.", lambda: seen.lost, label="kind")
    seen.observe_run = metrics.histogram(
        "jobs_run_seconds", "How long attempts took, by how they ended.", "kind", "outcome", buckets=BUCKETS
    ).observe
    seen.observe_wait = metrics.histogram(
        "jobs_wait_seconds", "From when a job was due to its start.", "kind", buckets=BUCKETS
    ).observe


def _of(seen: JobStatistics, state: str) -> Mapping[str, float]:
    return {one.kind: one.count for one in seen.table if one.state == state}


def _oldest(seen: JobStatistics) -> Mapping[str, float]:
    return {one.kind: one.oldest for one in seen.table if one.state == "waiting"}
