"""What a job takes: checked where it is declared, where it is enqueued, and where an older release's is run. Pure."""

from datetime import UTC, date, datetime, timedelta, timezone
from math import inf, nan
from typing import Annotated, Any, cast
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy import Connection

from service.platform.jobs import ArgumentsWrong, JobContext, JobsTwice, job, refuse_twins
from service.platform.jobs.declare import FIRST_PAUSE, LONGEST_PAUSE, StoredArgumentsWrong

WEST, EAST = timezone(timedelta(hours=-5)), timezone(timedelta(hours=5))


@job()
def charge(connection: Connection, *, order: int, note: str = "", at: datetime | None = None) -> None: ...


def test_arguments_go_to_json_and_back() -> None:
    at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    stored = charge.dump({"order": 7, "at": at})

    assert charge.load(stored) == {"order": 7, "note": "", "at": at}
    assert charge.name == "charge"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "job charge: order: Field required; it takes: order, note, at"),
        ({"order": "7"}, "job charge: order: Input should be a valid integer"),
        ({"order": 7, "coupon": 1}, "job charge: coupon: Extra inputs are not permitted"),
        ({"order": 7, "note": "a\0b"}, "must not hold NUL"),
        ({"order": 7, "note": "x" * 70_000}, "over 65536 bytes"),
    ],
)
def test_wrong_arguments_are_told_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentsWrong, match=words):
        charge.dump(given)


class Place(BaseModel):
    street: str = Field(alias="Street")


@job()
def deliver(
    connection: Connection,
    *,
    to: Place | None = None,
    weight: float = 0,
    code: str = "",
    rest: Any = None,
    door: SecretStr | None = None,
) -> None: ...


@job()
def recount(connection: Connection, *, days: int = cast("int", None)) -> None: ...


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (
            deliver,
            {"weight": nan},
            "job deliver: weight: Input should be a valid number, in JSON; it takes: to",
        ),
        (deliver, {"to": Place(Street="Elm")}, "job deliver: to.Street: Field required, in JSON"),
        (deliver, {"code": "\ud800"}, "job deliver: its arguments have no JSON: .*surrogates not allowed"),
        (deliver, {"rest": object()}, "job deliver: its arguments have no JSON: Unable to serialize unknown type"),
        (
            deliver,
            {"door": SecretStr("1234")},
            "job deliver: a secret is not stored, so door would come back as asterisks",
        ),
        (recount, {}, "job recount: days: Input should be a valid integer, in JSON; it takes: days"),
    ],
)
def test_what_would_not_come_back_from_the_table_is_refused(kind: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentsWrong, match=words):
        kind.dump(given)


def test_what_only_looks_like_a_secret_goes_in() -> None:
    assert deliver.load(deliver.dump({"code": "*" * 12, "rest": ("*" * 10,)}))["code"] == "*" * 12


@pytest.mark.parametrize("note", ["\\u0000", "\\\\u0000", "\\\\\\u0000", "\\\\x00", "\\ud800"])
def test_what_only_looks_like_a_nul_goes_in(note: str) -> None:
    assert charge.load(charge.dump({"order": 7, "note": note}))["note"] == note
    for nul in (note + "\0", "\\\0" + note):
        with pytest.raises(ArgumentsWrong, match="must not hold NUL"):
            charge.dump({"order": 7, "note": nul})


@job(name="charge", renamed={"order": "order_id"})
def charge_now(connection: Connection, *, order: int, currency: str = "EUR") -> None: ...


def test_an_older_release_s_arguments_fit_a_renamed_one_and_one_that_was_added() -> None:
    assert charge_now.load('{"order_id": 7}') == {"order": 7, "currency": "EUR"}
    assert charge_now.load('{"order": 7, "currency": "CHF"}') == {"order": 7, "currency": "CHF"}
    assert '"order":7' in charge_now.dump({"order": 7})


@job(name="charge")
def charge_before(connection: Connection, *, order: int) -> None: ...


@job(name="charge", renamed={"order": "number"})
def charge_ahead(connection: Connection, *, order: int) -> None: ...


@job(name="charge", renamed={"number": "order"})
def charge_next(connection: Connection, *, number: int) -> None: ...


def test_what_is_enqueued_fits_the_release_before_as_long_as_it_uses_nothing_new() -> None:
    """During a rollout that one takes jobs too, and after a rollback it alone: it refused an argument nobody gave."""
    assert charge_before.load(charge_now.dump({"order": 7})) == {"order": 7}
    assert charge_ahead.load(charge_next.dump({"number": 7})) == {"order": 7}
    with pytest.raises(StoredArgumentsWrong, match="job charge: currency"):
        charge_before.load(charge_now.dump({"order": 7, "currency": "EUR"}))


@job()
def stamp(connection: Connection, *, by: Annotated[str, Field(default_factory=lambda: uuid4().hex)]) -> None: ...


def test_what_a_factory_makes_is_the_same_at_each_attempt() -> None:
    stored = stamp.dump({})

    assert stamp.load(stored) == stamp.load(stored)
    assert stored != stamp.dump({})


def test_what_an_older_release_stored_and_nobody_takes_any_more_is_told() -> None:
    with pytest.raises(ArgumentsWrong, match="job charge: coupon"):
        charge_now.load('{"order": 7, "coupon": "x"}')


def test_repeats_wait_twice_as_long_each_time_and_are_spread() -> None:
    pauses = [[charge.pause(failures) for _ in range(50)] for failures in range(1, 40)]

    assert all(0.75 * FIRST_PAUSE <= pause <= 1.25 * FIRST_PAUSE for pause in pauses[0])
    assert all(0.75 * 8 <= pause <= 1.25 * 8 for pause in pauses[3])
    assert max(pauses[-1]) <= 1.25 * LONGEST_PAUSE
    assert len(set(pauses[5])) > 1


def positional(connection: Connection, order: int) -> None: ...
def untyped(connection: Connection, *, order) -> None: ...  # type: ignore[no-untyped-def]
def nothing(*, order: int) -> None: ...
def needy(connection: Connection, *, order: int) -> None: ...
def by_day(connection: Connection, *, turn: date) -> None: ...
def by_default(connection: Connection, *, days: int = cast("int", None)) -> None: ...
def yields(connection: Connection) -> Any:
    yield


async def yields_too(context: JobContext) -> Any:
    yield


@pytest.mark.parametrize(
    ("function", "options", "error", "words"),
    [
        (positional, {}, TypeError, r"job positional: order must come after a `\*`"),
        (untyped, {}, TypeError, "job untyped: order must have a type"),
        (nothing, {}, TypeError, "job nothing: must take a Connection, or a JobContext, as its first argument"),
        (needy, {"every": 60}, TypeError, "job needy: is scheduled, so nobody gives it order"),
        (by_day, {"every": 60}, TypeError, "job by_day: turn: Input should be a valid date; it takes: turn"),
        (by_default, {"every": 60}, TypeError, "job by_default: days: Input should be a valid integer, in JSON"),
        (yields, {}, TypeError, "job yields: must not yield: nobody would run it"),
        (yields_too, {}, TypeError, "job yields_too: must not yield"),
        (needy, {"renamed": {"oder": "x"}}, TypeError, "renamed: it takes no oder"),
        (needy, {"name": "Charge It"}, ValueError, "job Charge It: its name must be"),
        (needy, {"retries": -1}, ValueError, "retries: must be from 0 to 100, not -1"),
        (needy, {"deadline": 0}, ValueError, "deadline: must be from 0.1 to 86400 seconds, not 0"),
        (needy, {"concurrency": 0}, ValueError, "concurrency: must be 1 or more, not 0"),
        (needy, {"every": 60, "cron": "* * * * *"}, ValueError, "cron: must not be given together"),
        (needy, {"every": 60, "zone": "Europe/Berlin"}, ValueError, "zone: is for `cron`, which is not given"),
    ],
)
def test_a_wrong_declaration_is_refused(
    function: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        job(**options)(function)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delay": -1}, "delay: must be from 0 to 315360000 seconds, not -1"),
        ({"delay": nan}, "delay: must be from 0 to 315360000 seconds, not nan"),
        ({"delay": inf}, "delay: must be from 0 to 315360000 seconds, not inf"),
        ({"delay": 3e11}, "delay: must be from 0 to 315360000 seconds"),  # a year that Python does not have
        ({"at": datetime(2026, 1, 1)}, "at: must have a time zone"),  # noqa: DTZ001  the point
        ({"at": datetime.max.replace(tzinfo=WEST)}, "at: must be in the years 1 to 9999 in UTC, not 9999-12-31T23"),
        ({"at": datetime.min.replace(tzinfo=EAST)}, "at: must be in the years 1 to 9999 in UTC, not 0001-01-01T00"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC), "delay": 1}, "delay: must not be given together with `at`"),
        ({"key": ""}, "key: must be 1 to 200 characters"),
        ({"priority": "urgent"}, "priority: must be one of high, normal, low, not 'urgent'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        charge.with_options(**options)


def test_two_jobs_of_one_name_are_told_with_their_places() -> None:
    with pytest.raises(
        JobsTwice, match=r"job charge: .*test_declare.charge and .*test_declare.charge_now have the same"
    ):
        refuse_twins([charge, charge_now])


async def test_a_job_can_be_called_like_its_function() -> None:
    @job()
    async def greet(context: JobContext, *, name: str) -> None:
        names.append(name)

    names: list[str] = []
    await greet(None, name="ann")

    assert names == ["ann"]
    assert greet.is_async
    assert not charge.is_async
