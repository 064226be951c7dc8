"""When patience ends."""

from service.chat.limits import Strikes


def test_ten_bad_frames_in_a_row_are_too_many() -> None:
    strikes = Strikes()
    assert not any(strikes.miss() for _ in range(9))
    strikes.hit()
    assert not any(strikes.miss() for _ in range(9))

    assert strikes.miss()
