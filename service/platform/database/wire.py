"""libpq driven by Trio: connecting, single statements and cancel requests, without a thread and so cancellable.

For what is not a unit on a thread: the health look, the listener, the requests that cancel a query, single statements.
"""

from collections.abc import Mapping

import psycopg
import trio
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGcancelConn, PGconn, PGresult

from service.platform.database.address import asked_for_forms, encoding_problem, pooler_problem
from service.platform.database.names import look_up
from service.platform.database.redaction import flat

CONNECT_LIMIT = 2.0  # seconds for all addresses together, unless the caller has less
# Of that for names of several hosts: a name server that says nothing of one leaves time for the others.
LOOK_UP_SHARE = 0.5
# For an answer; longer than a wait for a lock, whose end says more. Whoever sends a statement sets it around, or less.
ANSWER_LIMIT = 10.0
STANDBY = "the database is a standby, takes no writes"
READ_ONLY_WORDS = "the database takes no writes: default_transaction_read_only is on"
_DEFAULT = b"default_transaction_read_only"
PASSED = {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY}


class ConnectFailed(Exception):
    """No address let us in; the message is what libpq said of each."""


def why_no_writes(pgconn: PGconn) -> str:
    """Return why the server takes no writes, as it says by itself at each change; a pooler may not pass that on."""
    if pgconn.parameter_status(b"in_hot_standby") == b"on":
        return STANDBY
    return READ_ONLY_WORDS if is_read_only(pgconn) else ""


def is_read_only(pgconn: PGconn) -> bool:
    """Tell whether the server is to take no writes, by its operators' word and not by that of our own address.

    A transaction may say otherwise, and ours do, since a standby is known by that. But this is how a database is held
    still while it moves to another server, and a full disk kept from getting fuller: what is written all the same is
    lost with the old server.
    """
    return pgconn.parameter_status(_DEFAULT) == b"on" and _DEFAULT not in pgconn.options


async def connect(parameters: Mapping[str, str], *, within: float = CONNECT_LIMIT) -> PGconn:
    """Return a new connection within so many seconds; all hosts' addresses are tried in order. Raises ConnectFailed.

    They share the time: one that never answers costs its share, and what an address leaves goes to those after it. Of
    several hosts one that takes no writes is the last choice, unless `target_session_attrs` wants otherwise.
    """
    search = _Search(any_will_do=parameters.get("target_session_attrs", "any") != "any")
    deadline = trio.current_time() + within
    attempts = await _attempts(parameters, search, within)
    try:
        with trio.move_on_at(deadline):
            for left in range(len(attempts), 0, -1):
                # A turn of the event loop may have taken all that was left.
                await search.try_one(attempts[-left], max(deadline - trio.current_time(), 0) / left)
                if search.done:
                    break
    except BaseException:
        search.give_up()
        raise
    if search.found is None:
        raise ConnectFailed(search.reasons or f"no connection within {within:g} s")
    return search.found


class _Search:
    """Address by address: the best connection so far, and why the others were not taken."""

    def __init__(self, *, any_will_do: bool) -> None:
        self.found: PGconn | None = None
        self._any_will_do = any_will_do
        self._reasons: list[str] = []

    @property
    def done(self) -> bool:
        return self.found is not None and (self._any_will_do or not why_no_writes(self.found))

    @property
    def reasons(self) -> str:
        return "; ".join(self._reasons)

    async def try_one(self, attempt: Mapping[str, str], seconds: float) -> None:
        with trio.move_on_after(seconds):
            try:
                pgconn = await _connect_once(attempt)
            except trio.Cancelled:
                self._reasons.append(f"no answer from {attempt.get('hostaddr') or attempt.get('host')}")
                raise
            except (psycopg.Error, OSError) as failed:  # OSError: no descriptor left
                self.note(failed)
            else:
                self._take(pgconn)

    def note(self, failed: psycopg.Error | OSError) -> None:
        self._reasons.append(flat(failed))

    def _take(self, pgconn: PGconn) -> None:
        if self.found is None or not why_no_writes(pgconn):
            self.give_up()
            self.found = pgconn
        else:
            pgconn.finish()

    def give_up(self) -> None:
        if self.found is not None:
            self.found.finish()
            self.found = None


async def _attempts(parameters: Mapping[str, str], search: _Search, within: float) -> list[dict[str, str]]:
    """Spread the hosts over attempts, one for each of their addresses. Several whose names are asked for leave time."""
    addresses = parameters.get("hostaddr", "").split(",")
    hosts = parameters["host"].split(",") if parameters.get("host") else [""] * len(addresses)
    ports = parameters.get("port", "").split(",")
    if len(ports) not in {1, len(hosts)} or ("hostaddr" in parameters and len(addresses) != len(hosts)):
        return [dict(parameters)]  # libpq knows what is wrong
    given = addresses if "hostaddr" in parameters else [""] * len(hosts)
    asked_for = [host for host, address in zip(hosts, given, strict=True) if not address]
    names = await look_up(asked_for, within=within if len(hosts) == 1 else within * LOOK_UP_SHARE)
    attempts = []
    for number, (host, address) in enumerate(zip(hosts, given, strict=True)):
        attempt = {**parameters, "host": host, "hostaddr": address, "port": ports[number if len(ports) > 1 else 0]}
        found = [address] if address else names.get(host, [""])
        if isinstance(found, psycopg.OperationalError):
            search.note(found)
        else:
            attempts += [{**attempt, "hostaddr": each} for each in found]
    return [{name: value for name, value in attempt.items() if value} for attempt in attempts]


async def _connect_once(parameters: Mapping[str, str]) -> PGconn:
    pgconn = pq.PGconn.connect_start(make_conninfo("", **parameters).encode())
    try:
        await _poll(pgconn)
        _refuse_encodings(pgconn)
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    return pgconn


async def _poll(pgconn: PGconn) -> None:
    while pgconn.status != pq.ConnStatus.BAD:
        match pgconn.connect_poll():
            case pq.PollingStatus.READING:
                await trio.lowlevel.wait_readable(pgconn.socket)
            case pq.PollingStatus.WRITING:
                await trio.lowlevel.wait_writable(pgconn.socket)
            case pq.PollingStatus.OK:
                return
            case _:
                break
    refusal = pgconn.get_error_message()
    raise psycopg.OperationalError(f"{refusal}{pooler_problem(refusal, past=asked_for_forms(pgconn.options))}")


def _refuse_encodings(pgconn: PGconn) -> None:
    if problem := encoding_problem(pgconn):
        raise psycopg.OperationalError(problem)


async def execute(pgconn: PGconn, statement: str) -> PGresult:
    """Send one statement and return its result. Raises psycopg.Error; cancelled, it leaves the connection unusable."""
    pgconn.send_query(statement.encode())
    await flush(pgconn)
    last = None
    while (result := await next_result(pgconn)) is not None:
        last = result  # all are taken, so that the connection is free for the next statement
    if last is None or last.status not in PASSED:
        raise psycopg.errors.error_from_result(last) if last else psycopg.OperationalError("no answer")
    return last


async def flush(pgconn: PGconn) -> None:
    """Send what is still to be sent; cancelled, it may be called again."""
    while pgconn.flush():
        await trio.lowlevel.wait_writable(pgconn.socket)


async def next_result(pgconn: PGconn) -> PGresult | None:
    """Return the next result, None after a statement's last; cancelled, it may be called again."""
    while pgconn.is_busy():
        await trio.lowlevel.wait_readable(pgconn.socket)
        pgconn.consume_input()
    return pgconn.get_result()


async def request_cancel(pgconn: PGconn) -> bool:
    """Ask the server to cancel what `pgconn` runs; return whether it has: if not, nobody knows if and when it will."""
    request = pgconn.cancel_conn()
    try:
        request.start()  # over TLS when the connection is
        while (wanted := request.poll()) in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
            await _wait(request, wanted)
    except psycopg.OperationalError:
        return False  # the server is gone, or going
    else:
        return wanted == pq.PollingStatus.OK
    finally:
        request.finish()


async def _wait(request: PGcancelConn, wanted: int) -> None:
    if wanted == pq.PollingStatus.READING:
        await trio.lowlevel.wait_readable(request.socket)
    else:
        await trio.lowlevel.wait_writable(request.socket)
