"""When a schedule is due, over daylight saving and after what was missed. Pure."""

from datetime import UTC, datetime, timedelta

import pytest

from service.platform.jobs.schedule import Cron, Every, Schedule


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def turns(schedule: Schedule, begin: str, end: str) -> list[str]:
    found, now = [], at(begin)
    while (now := schedule.following(now)) <= at(end):
        found.append(now.strftime("%d %H:%M"))
    return found


def test_an_interval_has_the_same_turns_on_every_replica() -> None:
    every = Every(90)

    assert every.latest(at("2026-03-01T12:00:10")) == every.latest(at("2026-03-01T12:01:20"))
    assert every.following(at("2026-03-01T12:00:10")) - every.latest(at("2026-03-01T12:00:10")) == timedelta(seconds=90)
    assert every.latest(at("2026-03-01T12:00:00")) == at("2026-03-01T12:00:00")


@pytest.mark.parametrize(
    "now", ["2026-03-29T00:59:59", "2026-03-29T01:00:00", "2026-10-25T00:30:00", "2026-07-01T12:34:56"]
)
@pytest.mark.parametrize(
    "schedule", [Every(7), Every(86_400), Cron("30 2 * * *", "Europe/Berlin"), Cron("*/5 * * * *", "UTC")]
)
def test_the_latest_is_not_after_now_and_the_following_is(schedule: Schedule, now: str) -> None:
    latest, following = schedule.latest(at(now)), schedule.following(at(now))

    assert latest <= at(now) < following
    assert schedule.following(latest) == following
    assert schedule.latest(following) == following


def test_a_time_that_the_clock_jumps_over_comes_right_after_the_jump() -> None:
    nightly = Cron("30 2 * * *", "Europe/Berlin")  # 02:00 becomes 03:00 on 29 March: 01:00 UTC

    assert turns(nightly, "2026-03-27T12:00:00", "2026-03-31T12:00:00") == [
        "28 01:30",
        "29 01:00",
        "30 00:30",
        "31 00:30",
    ]


def test_a_time_that_the_clock_shows_twice_comes_once() -> None:
    nightly = Cron("30 2 * * *", "Europe/Berlin")  # 03:00 becomes 02:00 on 25 October: 01:00 UTC

    assert turns(nightly, "2026-10-23T12:00:00", "2026-10-26T12:00:00") == ["24 00:30", "25 00:30", "26 01:30"]


@pytest.mark.parametrize("begin", ["2026-03-29T00:00:00", "2026-10-25T00:00:00"])
def test_every_hour_goes_on_evenly_over_both(begin: str) -> None:
    end = (at(begin) + timedelta(hours=4)).replace(tzinfo=None).isoformat()

    assert len(turns(Cron("0 * * * *", "Europe/Berlin"), begin, end)) == 4


@pytest.mark.parametrize(
    ("expression", "zone", "begin"),
    [
        ("0 * * * *", "Europe/Berlin", "2026-10-24T22:00:00"),
        ("*/15 * * * *", "America/New_York", "2026-11-01T03:00:00"),
        ("*/15 * * * *", "Europe/Berlin", "2026-03-28T23:00:00"),
        ("5,35 2 * * *", "Europe/Berlin", "2026-10-24T22:00:00"),
        ("* 2 * * *", "Europe/Berlin", "2026-10-24T22:00:00"),
        ("0 */2 * * *", "Pacific/Chatham", "2026-04-04T10:00:00"),
    ],
)
def test_at_each_minute_the_latest_and_the_following_are_the_turns_around_it(
    expression: str, zone: str, begin: str
) -> None:
    """Five hours in whose middle the clock is put forward or back."""
    schedule, moment = Cron(expression, zone), at(begin)
    chain = [schedule.following(moment - timedelta(days=2))]
    while chain[-1] < moment + timedelta(days=2):
        chain.append(schedule.following(chain[-1]))

    for now in (moment + timedelta(minutes=minute, seconds=1) for minute in range(300)):
        behind = sum(turn <= now for turn in chain)
        assert (schedule.latest(now), schedule.following(now)) == (chain[behind - 1], chain[behind]), now


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Every(0), "every: must be from 1 second"),
        (lambda: Every(0.9), "every: must be from 1 second"),
        (lambda: Every(366 * 86_400 + 1), "to 366 days"),
        (lambda: Cron("* * *", "UTC"), "cron: must be like '30 3 * * *', not '* * *'"),
        (lambda: Cron("99 * * * *", "UTC"), "cron: must be like"),
        (lambda: Cron("0 0 30 2 *", "UTC"), "cron: must be like"),
        (lambda: Cron("0 3 * * *", "Europe/Bärlin"), "zone: must be a name such as Europe/Berlin"),
        (lambda: Cron("0 3 * * *", "../etc"), "zone: must be a name"),
    ],
)
def test_what_is_no_schedule_is_refused_where_it_is_declared(make: "object", words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("*", r"\*").replace("[", r"\[")):
        make()  # type: ignore[operator]
