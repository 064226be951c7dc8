"""Counting members over replicas: what is told, heard, added up and forgotten."""

import trio

from service.chat import relay, store
from service.chat.presence import FORGET, MAX_PAYLOAD, REPEAT, Presence
from service.chat.rooms import Rooms
from service.platform.database import open_database
from service.platform.testing.fixtures import MakeSettings
from tests.chat.conftest import Start
from tests.chat.frames import open_raw


def test_changes_are_told_at_once_and_everything_from_time_to_time() -> None:
    presence = Presence("me")

    assert presence.tell({"one": 1, "two": 2}, 0) == ["@me one=1,two=2"]
    assert presence.tell({"one": 1, "two": 3}, 1) == ["@me two=3"]
    assert presence.tell({"one": 1, "two": 3}, 2) == []
    assert presence.tell({"one": 1}, 3) == ["@me two=0"]
    assert presence.tell({"one": 1}, REPEAT) == ["@me one=1"]


def test_totals_add_up_what_others_tell_until_they_fall_silent() -> None:
    presence = Presence("me")
    presence.take("@you one=4,elsewhere=9", 0)
    presence.take("@them one=2", 0)
    presence.take("@me one=100", 0)  # its own words
    presence.take("@you nonsense,one=-1,=,one=99999999999", 0)

    assert presence.changes({"one": 1}, 1) == {"one": 7}
    assert presence.changes({"one": 1}, 2) == {}
    presence.take("@them one=0", 3)
    presence.take("@you elsewhere=9", 3)
    assert presence.changes({"one": 1}, 4) == {"one": 5}
    assert presence.changes({"one": 1}, 4 + FORGET) == {"one": 1}


def test_members_whose_leaving_was_not_heard_are_forgotten_though_their_replica_is_heard_on() -> None:
    presence, other = Presence("me"), Presence("you")
    for telling in other.tell({"one": 4, "two": 2}, 0):
        presence.take(telling, 0)
    assert other.tell({"two": 2}, 1) == ["@you one=0"]  # nobody listened: PostgreSQL had been restarted
    for now in (REPEAT, 2 * REPEAT, 3 * REPEAT):
        for telling in other.tell({"two": 2}, now):
            presence.take(telling, now)

    assert presence.changes({"one": 1, "two": 1}, 3 * REPEAT) == {"one": 1, "two": 3}


async def test_nonsense_of_others_is_heard_out(make_settings: MakeSettings) -> None:
    nonsense = ["hello", ":", "one:", "one:-1", "one:x", "one:" + "9" * 5_000, "@", "@you", "@you one=x", "é:é"]
    presence = Presence("me")
    async with (
        open_database(make_settings()) as database,
        open_database(make_settings()) as of_others,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(relay.listen, database, Rooms(database, readers=1), presence)
        with trio.fail_after(30):
            while presence.changes({"one": 1}, trio.current_time()) != {"one": 4}:
                await of_others.run(store.notify, [*nonsense, "@you one=3"])
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


def test_many_rooms_are_told_in_payloads_that_postgresql_takes() -> None:
    tellings = Presence("me").tell({f"{'room' * 10}-{number}": number for number in range(5_000)}, 0)
    presence = Presence("you")
    for telling in tellings:
        presence.take(telling, 0)

    assert max(map(len, tellings)) < MAX_PAYLOAD + 100
    assert presence.changes({f"{'room' * 10}-4999": 1}, 0) == {f"{'room' * 10}-4999": 5_000}


async def test_members_learn_how_many_they_are_on_all_replicas(start: Start) -> None:
    with trio.fail_after(60):
        one, two = await start(), await start()
        async with open_raw(one.url) as ann, open_raw(one.url, protocol=None), open_raw(two.url) as kim:
            for line in (ann, kim):
                await line.send({"type": "join", "room": "lobby", "ref": "r"})
            for line in (ann, kim):
                while (await line.expect("presence"))["count"] != 3:
                    pass
            await kim.send({"type": "leave", "room": "lobby", "ref": "r"})

            while (await ann.expect("presence"))["count"] != 2:
                pass
