"""`Idempotency-Key`: a POST that is sent again, because its answer was lost, has its effect once and the same answer.

    @routes.post("/api/orders")
    @signed_in
    @limited()
    @idempotent
    async def order() -> Response:
        return await run_once(database, lambda number: ({"number": number}, 201), store.place_order, item=item)

Theory of operation. The key, a hash of the request and the answer are a row that is written in the unit's own
transaction: there is an effect if and only if there is an answer to repeat. A lock that lives as long as the
transaction keeps a second request of the same key out, at any replica: it is told 409 at once, with `Retry-After`, and
comes again. A unit that raises leaves nothing, so its repeat is tried anew. A key belongs to whoever has signed in;
guests share theirs.
"""

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial, wraps
from hashlib import sha256
from typing import Any, Concatenate, cast

import trio
from quart import Response, current_app, request
from sqlalchemy import Connection

from service.platform.database import Database
from service.platform.errors import Invalid
from service.platform.http import idempotency_store as store
from service.platform.http.callers import caller
from service.platform.http.idempotency_store import Kept, Once

HEADER = "Idempotency-Key"
SWEEP = 600.0  # seconds between two looks for rows that are too old
# Visible ASCII without quote and backslash; the draft of the standard has it as a quoted string.
_FORM = re.compile(r'("?)([!#-\[\]-~]{1,255})\1')
_IN_SCOPE, _RUN_IN_SCOPE = "once", "once run"


def idempotent[**P, T](view: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Declare that a route takes `Idempotency-Key`; its unit of work goes through `run_once`."""

    @wraps(view)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        if given := request.headers.getlist(HEADER):
            cast(dict[str, Any], request.scope)[_IN_SCOPE] = await _read(given)
        return await view(*args, **kwargs)

    wrapped.idempotent = True  # type: ignore[attr-defined]  # a function takes attributes
    return wrapped


async def run_once[**P, T](
    database: Database,
    answer: Callable[[T], tuple[Any, int]],
    unit: Callable[Concatenate[Connection, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """Run a unit of work unless its request was answered before; return that answer, or the one that is made now.

    `answer` makes the body, which becomes JSON, and the status of what the unit returns. It runs inside the
    transaction, so it is quick and does nothing else. Raises as `database.run` does, BeingAnswered while another
    request of this key runs, Unprocessable when the key belongs to another request, RuntimeError for a second unit of a
    request: the answer of the first would be taken for its own.
    """
    scope = cast(dict[str, Any], request.scope)
    once: Once | None = scope.get(_IN_SCOPE)  # put there by `idempotent`
    if scope.get(_RUN_IN_SCOPE):
        raise RuntimeError("run_once: has run a unit in this request, whose key stands for one: make one of both")
    dumps = current_app.json.dumps  # as for what any other route returns: dates, UUIDs, decimals and dataclasses too

    def work(connection: Connection) -> Kept:
        body, status = answer(unit(connection, *args, **kwargs))
        return Kept(status, dumps(body))

    scope[_RUN_IN_SCOPE] = True  # ahead of the wait, in which another task of the view may come here
    try:
        kept = await database.run(work if once is None else partial(store.answer_once, once=once, work=work))
    except BaseException:
        scope[_RUN_IN_SCOPE] = False  # a view may try again
        raise
    headers = {"Idempotency-Replayed": "true"} if kept.replayed else {}
    return Response(kept.body, kept.status, headers, content_type="application/json")


@asynccontextmanager
async def open_idempotency(database: Database) -> AsyncIterator[None]:
    """Keep the table small inside this scope."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_small, database)
        yield
        nursery.cancel_scope.cancel()


async def keep_small(database: Database) -> None:
    """Delete the answers that nobody is promised any more, for ever; what fails is done again soon."""
    while True:
        await trio.sleep(random.uniform(0.5, 1) * SWEEP)  # noqa: S311  spreads replicas, keeps no secret
        await database.keep_running(sweep, database)


async def sweep(database: Database) -> None:
    while await database.run(store.delete_old_answers) >= store.MOST_DELETED:
        pass


async def _read(given: list[str]) -> Once:
    """Return the key as this caller's, with the hash of the request. Raises Invalid."""
    if len(given) > 1:
        raise Invalid(f"{HEADER}: must be given once; another on the way may take another of them")
    if (found := _FORM.fullmatch(given[0])) is None:
        raise Invalid(f"{HEADER}: must be 1 to 255 visible ASCII characters without quotes and backslashes")
    who = await caller()
    asked = f"{request.method}\0{request.path}\0{request.query_string.decode('latin-1')}\0".encode()
    body = cast(bytes, await request.get_data(as_text=False))
    return Once(key=sha256(f"{who.subject}\0{found[2]}".encode()).digest(), fingerprint=sha256(asked + body).digest())
