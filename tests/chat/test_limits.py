"""When patience ends, in virtual time."""

from service.chat.limits import CALM, FLOOD, Patience, Strikes


def test_ten_bad_frames_in_a_row_are_too_many() -> None:
    strikes = Strikes()
    assert not any(strikes.miss() for _ in range(9))
    strikes.hit()
    assert not any(strikes.miss() for _ in range(9))

    assert strikes.miss()


def test_a_flood_is_ended_after_ten_seconds() -> None:
    patience = Patience()

    assert not any(patience.refuse(100 + tenth / 10) for tenth in range(int(FLOOD * 10)))
    assert patience.refuse(100 + FLOOD)


def test_who_calms_down_between_is_forgiven() -> None:
    patience = Patience()
    now = 0.0
    for _ in range(20):
        for _ in range(5):
            now += 1
            assert not patience.refuse(now)
        now += CALM
