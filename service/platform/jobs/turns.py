"""Which schedules have missed turns: seen by whoever looks at the table, as where nothing works nobody takes any."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from service.platform.jobs.declare import Job


class Turns:
    """The schedules of these kinds. One that the table has never seen misses what comes after the first look for it."""

    def __init__(self, kinds: Sequence[Job[...]]) -> None:
        self._schedules = {one.name: one.schedule for one in kinds if one.schedule is not None}
        self._begun: dict[str, datetime] = {}

    def missed(self, connection: Connection) -> dict[str, float]:
        """Return for each schedule the seconds since the first turn that it has missed, or 0.

        A turn that waits or runs, an earlier one too, has come, and the next is to wait for it: of that other numbers
        tell. One that lies ahead of the server's clock keeps none that is due from being missed.
        """
        missed: dict[str, float] = {}
        if not self._schedules:
            return missed
        for row in connection.execute(_NEWEST_DUE, {"kinds": list(self._schedules)}):
            newest = row.turn or self._begun.setdefault(row.kind, row.now)
            due = self._schedules[row.kind].following(newest)
            missed[row.kind] = 0.0 if row.is_unfinished else max(0.0, (row.now - due).total_seconds())
        return missed


_UNFINISHED = " OR ".join(  # each has an index of its own
    f"EXISTS (SELECT FROM job WHERE job.kind = kind.kind AND state = '{state}' AND turn <= clock_timestamp())"
    for state in ("waiting", "running")
)
_NEWEST_DUE = text(f"""
    SELECT clock_timestamp() AS now, kind, {_UNFINISHED} AS is_unfinished,
        (SELECT turn FROM job WHERE job.kind = kind.kind AND turn <= clock_timestamp()
            ORDER BY turn DESC LIMIT 1) AS turn
    FROM unnest(CAST(:kinds AS text[])) AS kind(kind)""")  # noqa: S608  constants
