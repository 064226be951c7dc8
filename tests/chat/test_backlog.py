"""Sends that wait: what is taken together, in which order, how many may wait, and that each is answered once."""

import gc
from weakref import ref

import pytest

from service.chat.backlog import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    MAX_BATCH_OF_ONE,
    MAX_WAITING,
    MAX_WAITING_OF_ONE,
    Answer,
    Backlog,
    Full,
    Pending,
)
from service.chat.protocol import Error
from tests.chat.worlds import note

OVER = Error(code="unavailable", message="over")


class Sender:
    """Whoever adds sends; notes which were answered."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self.answered: list[str] = []

    def add(self, *ids: str, room: str = "lobby", text: str = "t", deadline: float = 9) -> list[Pending]:
        return [self._add(id_, room, text, deadline) for id_ in ids]

    def _add(self, id_: str, room: str, text: str, deadline: float) -> Pending:
        def answer(_: Answer) -> None:
            self.answered.append(id_)

        draft = note(id_, room=room, text=text)
        pending = Pending(draft=draft, owner=self, answer=answer, deadline=deadline)
        self._backlog.add(pending)
        return pending


def ids(batch: list[Pending]) -> list[str]:
    return [pending.draft.id for pending in batch]


def numbers(count: int) -> list[str]:
    return [f"{number}" for number in range(count)]


def test_a_batch_is_the_oldest_first_over_all_rooms() -> None:
    backlog = Backlog()
    ann, ben = Sender(backlog), Sender(backlog)
    ann.add("1", room="one")
    ben.add("2", room="two")
    ann.add("3", room="one")

    assert ids(backlog.take()) == ["1", "2", "3"]
    assert backlog.take() == []


def test_a_batch_is_bounded_in_number_over_all_and_of_one() -> None:
    backlog = Backlog()
    for number in range(10):
        Sender(backlog).add(*[f"{number}-{each}" for each in numbers(MAX_BATCH_OF_ONE + 1)])

    sizes = []
    while batch := backlog.take():
        sizes.append(len(batch))
        assert (
            max(sum(each.startswith(f"{number}-") for each in ids(batch)) for number in range(10)) <= MAX_BATCH_OF_ONE
        )

    assert max(sizes) == MAX_BATCH
    assert sum(sizes) == 10 * (MAX_BATCH_OF_ONE + 1)


def test_a_batch_is_bounded_in_bytes_and_what_is_larger_still_goes() -> None:
    backlog = Backlog()
    sender = Sender(backlog)
    sender.add("huge", text="é" * MAX_BATCH_BYTES)
    sender.add("1", "2", text="é" * (MAX_BATCH_BYTES // 4))
    sender.add("3")

    assert [ids(backlog.take()) for _ in range(2)] == [["huge"], ["1", "2"]]
    assert ids(backlog.take()) == ["3"]


def test_what_one_sent_later_never_overtakes_what_did_not_fit() -> None:
    backlog = Backlog()
    ann, ben = Sender(backlog), Sender(backlog)
    ann.add("1", text="x" * (MAX_BATCH_BYTES - 10))
    ann.add("2", text="x" * 20)
    ann.add("3")
    ben.add("4")

    assert ids(backlog.take()) == ["1", "4"]
    assert ids(backlog.take()) == ["2", "3"]


def test_what_is_put_back_goes_ahead_of_what_came_later() -> None:
    backlog = Backlog()
    sender = Sender(backlog)
    sender.add("1", "2")
    batch = backlog.take()
    sender.add("3")

    backlog.answer(batch[0], OVER)
    backlog.put_back(batch)

    assert ids(backlog.take()) == ["2", "3"]


def test_what_is_put_back_one_by_one_keeps_its_order() -> None:
    backlog = Backlog()
    Sender(backlog).add("1", "2", "3")

    for pending in backlog.take():
        backlog.put_back([pending])

    assert ids(backlog.take()) == ["1", "2", "3"]


def test_a_held_room_is_taken_alone_until_it_is_released() -> None:
    backlog = Backlog()
    sender = Sender(backlog)
    sender.add("1", room="held")
    sender.add("2", room="open")
    backlog.hold("held")

    assert ids(backlog.take()) == ["2"]
    assert (backlog.is_held("held"), backlog.is_held("open")) == (True, False)
    assert ids(backlog.take(only="held")) == ["1"]
    sender.add("3", room="held")
    backlog.release("held")
    assert ids(backlog.take()) == ["3"]


def test_so_many_of_one_may_wait_in_a_batch_or_not() -> None:
    backlog = Backlog()
    sender = Sender(backlog)
    sender.add(*numbers(MAX_WAITING_OF_ONE))
    batch = backlog.take()

    with pytest.raises(Full):
        sender.add("one more")
    Sender(backlog).add("of another")
    backlog.answer(batch[0], OVER)
    sender.add("now")
    with pytest.raises(Full):
        sender.add("one more")

    assert len(backlog) == MAX_WAITING_OF_ONE + 1


def test_nothing_is_kept_of_who_has_nothing_waiting() -> None:
    backlog = Backlog()
    sender = Sender(backlog)
    gone = ref(sender)
    [pending] = sender.add("1")
    backlog.answer(pending, OVER)

    assert (backlog.take(), backlog.overdue(99)) == ([], [])
    del sender, pending
    gc.collect()
    assert gone() is None


def test_so_many_of_all_may_wait() -> None:
    backlog = Backlog()
    for _ in range(MAX_WAITING // 50):
        Sender(backlog).add(*numbers(50))

    with pytest.raises(Full):
        Sender(backlog).add("one more")
    assert len(backlog) == MAX_WAITING


def test_each_is_answered_once() -> None:
    backlog = Backlog()
    sender = Sender(backlog)
    (pending,) = sender.add("1")

    backlog.answer(pending, OVER)
    backlog.answer(pending, OVER)

    assert sender.answered == ["1"]
    assert (len(backlog), backlog.take(), backlog.overdue(99)) == (0, [], [])


def test_what_is_overdue_is_told_once_in_a_batch_or_not() -> None:
    backlog = Backlog()
    sender = Sender(backlog)
    sender.add("1", "2", deadline=1)
    sender.add("3", deadline=2)
    taken = backlog.take()
    backlog.answer(taken[1], OVER)

    assert backlog.overdue(0.9) == []
    assert ids(backlog.overdue(1)) == ["1"]
    assert ids(backlog.overdue(5)) == ["3"]
    assert backlog.overdue(5) == []
