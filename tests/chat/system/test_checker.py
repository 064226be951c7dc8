"""The checker finds each bug that is planted in an otherwise good history. It would be worth nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chat.system.checker import Acked, Got, History, Joined, violations


def good() -> History:
    """Two rooms, two members: one stays, one is cut off after the second message and resumes."""
    history = History()
    for room in ("one", "two"):
        messages = [Got(room, "e", seq, f"{room}-{seq}", f"text {seq}") for seq in range(1, 6)]
        history.rooms[room] = messages
        for message in messages:
            history.sent[room, message.id] = message.text
            history.acks.append(Acked(room, message.id, "e", message.seq, dup=False))
    one = history.rooms["one"]
    history.acks.append(Acked("one", "one-3", "e", 3, dup=True))
    history.members["stays"] = [Joined("one", None, "e", 0, gap=False), *one]
    history.members["resumes"] = [
        Joined("one", None, "e", 0, gap=False), *one[:2], Joined("one", ("e", 2), "e", 2, gap=False), *one[2:],
    ]  # fmt: skip
    return history


def ack_before_commit(history: History) -> None:
    lost = history.rooms["two"].pop()
    assert lost.seq == 5


def lost_notification(history: History) -> None:
    history.members["stays"].pop()


def lost_in_the_middle(history: History) -> None:
    del history.members["stays"][3]


def shuffled_order(history: History) -> None:
    seen = history.members["stays"]
    seen[2], seen[3] = seen[3], seen[2]


def another_order_on_another_replica(history: History) -> None:
    one, two = history.rooms["one"][0], history.rooms["one"][1]
    history.members["stays"][1:3] = [replace(two, seq=1), replace(one, seq=2)]


def dropped_resume(history: History) -> None:
    """The resumed member is put at the head as if it had asked for nothing."""
    seen = history.members["resumes"]
    seen[3:] = [Joined("one", ("e", 2), "e", 5, gap=False)]


def delivered_twice(history: History) -> None:
    seen = history.members["stays"]
    seen.insert(3, seen[2])


def stored_twice(history: History) -> None:
    first = history.rooms["two"][0]
    history.rooms["two"].append(replace(first, seq=6))


def hole_in_the_seqs(history: History) -> None:
    history.rooms["two"][-1] = replace(history.rooms["two"][-1], seq=7)


def foreign_room(history: History) -> None:
    history.members["stays"].append(history.rooms["two"][0])


def changed_text(history: History) -> None:
    history.rooms["two"][2] = replace(history.rooms["two"][2], text="text 3 ")


def changed_on_the_way(history: History) -> None:
    seen = history.members["stays"]
    assert isinstance(seen[1], Got)
    seen[1] = replace(seen[1], text="e\u0301")


def moved_after_the_ack(history: History) -> None:
    history.acks[0] = replace(history.acks[0], seq=2)


def repeat_taken_for_new(history: History) -> None:
    history.acks[-1] = replace(history.acks[-1], dup=False)


def delivered_and_rolled_back(history: History) -> None:
    history.members["stays"].append(Got("one", "e", 6, "one-6", "text 6"))


def invented(history: History) -> None:
    history.rooms["two"].append(Got("two", "e", 6, "nobody's", "text"))


def gap_without_need(history: History) -> None:
    seen = history.members["resumes"]
    seen[3:] = [Joined("one", ("e", 2), "e", 5, gap=True)]


PLANTED = [
    ack_before_commit, lost_notification, lost_in_the_middle, shuffled_order, another_order_on_another_replica,
    dropped_resume, delivered_twice, stored_twice, hole_in_the_seqs, foreign_room, changed_text, changed_on_the_way,
    moved_after_the_ack, repeat_taken_for_new, delivered_and_rolled_back, invented, gap_without_need,
]  # fmt: skip


def test_a_good_history_has_no_violations() -> None:
    assert violations(good()) == []


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Callable[[History], None]) -> None:
    history = good()

    plant(history)

    assert violations(history)
