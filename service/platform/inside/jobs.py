"""Jobs as an operator sees them: counts, lists, one, and what may be done with it. For loopback only."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import structlog
from quart import Blueprint, request
from sqlalchemy import Connection, RowMapping

from service.platform.database import Database
from service.platform.errors import Invalid, NotFound, cut
from service.platform.inside.management import loopback_only
from service.platform.jobs import operators, statistics

log = structlog.get_logger(__name__)

PATH = "/jobs"
STATES = ("waiting", "running", "done", "dead", "discarded")
USUAL, MOST = 50, 500  # jobs in a list
LARGEST = 2**63 - 1
_PRIORITIES = {1: "high", 0: "normal", -1: "low"}

CHANGES: Mapping[str, Callable[[Connection, int], RowMapping]] = {
    "retry": operators.retry,
    "discard": operators.discard,
    "run": operators.run_now,
}
OF_A_KIND: Mapping[str, Mapping[str, Callable[..., int]]] = {  # by the state that they are in
    "retry": {"dead": operators.retry_dead},
    "discard": {"dead": operators.discard_dead, "waiting": operators.discard_waiting},
}


def create_routes(database: Database) -> Blueprint:
    routes = Blueprint("jobs", __name__)

    @routes.get(PATH)
    @loopback_only
    async def counts() -> dict[str, Any]:
        """Return how many wait, run and are dead, by kind; `oldest` is seconds since the first was due."""
        return {"counts": [asdict(one) for one in await database.read(statistics.counts)]}

    @routes.get(f"{PATH}/list")
    @loopback_only
    async def some() -> dict[str, Any]:
        """Return jobs, the newest first: of a `state`, of a `kind`, up to `limit`, with ids below `before`."""
        state, kind = request.args.get("state"), _kind() if "kind" in request.args else None
        if state is not None and state not in STATES:
            raise Invalid(f"state: must be one of {', '.join(STATES)}, not {cut(state)!r}")
        limit, before = _number("limit", USUAL, MOST), _number("before", LARGEST, LARGEST)
        rows = await database.read(operators.select_some, state=state, kind=kind, most=limit, before=before)
        return {"jobs": [shown(row) for row in rows]}

    @routes.get(f"{PATH}/<int:id>")
    @loopback_only
    async def one(id: int) -> dict[str, Any]:  # noqa: A002  the path's name
        return shown(await database.read(operators.select_one, _held(id)))

    @routes.post(f"{PATH}/<int:id>/<any({', '.join(CHANGES)}):change>")
    @loopback_only
    async def change(id: int, change: str) -> dict[str, Any]:  # noqa: A002
        """Retry a dead or discarded one, discard one that waits, is dead or has lost its worker, or run one now."""
        row = await database.run(CHANGES[change], _held(id))
        log.warning("job changed by an operator", change=change, kind=row["kind"], id=id)
        return shown(row)

    @routes.post(f"{PATH}/<any({', '.join(OF_A_KIND)}):change>")
    @loopback_only
    async def change_all(change: str) -> dict[str, Any]:
        """Retry or discard all that are dead of a `kind`, or discard those in `state=waiting`; return how many.

        What dies meanwhile, or is enqueued, is left.
        """
        kind, state = _kind(), request.args.get("state", "dead")
        if (act := OF_A_KIND[change].get(state)) is None:
            raise Invalid(f"state: must be {' or '.join(OF_A_KIND[change])} to {change}, not {cut(state)!r}")
        until, changed = await database.read(operators.select_now), 0
        try:
            while portion := await database.run(act, kind=kind, until=until):
                changed += portion
        finally:  # those that were changed are, also where the next ones cannot be
            if changed:
                log.warning("jobs changed by an operator", change=change, kind=kind, state=state, count=changed)
        if not changed:
            raise NotFound(f"there is no {state} job of {cut(kind)} to {change}")
        return {"kind": kind, "changed": changed}

    return routes


def _kind() -> str:
    given = request.args.get("kind", "")
    if not given or "\0" in given:  # which PostgreSQL's texts cannot hold
        raise Invalid(f"kind: must be a job's name, as /jobs lists them, not {cut(given)!r}")
    return given


def _held(id: int) -> int:  # noqa: A002
    """Return an id that the column can hold."""
    if id > LARGEST:
        raise NotFound(f"there is no job {cut(str(id))}")
    return id


def _number(name: str, usual: int, most: int) -> int:
    given = request.args.get(name, str(usual))
    digits = given.isascii() and given.isdecimal() and len(given) <= len(str(most))  # int() refuses thousands of them
    if not (digits and 1 <= int(given) <= most):
        raise Invalid(f"{name}: must be a number from 1 to {most}, not {cut(given)!r}")
    return int(given)


def shown(row: RowMapping) -> dict[str, Any]:
    """Return a job as JSON: times in ISO 8601, a priority by its word."""
    document = {name: value for name, value in row.items() if value is not None}
    times = {name: value.isoformat() for name, value in document.items() if isinstance(value, datetime.datetime)}
    return {**document, **times, "priority": _PRIORITIES[row["priority"]]}
