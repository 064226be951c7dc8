"""When patience ends, and by which codes that is said."""

from service.chat.limits import Strikes
from service.chat.protocol import Close
from service.platform.http import conversations
from service.platform.identity import SIGNED_OUT


def test_ten_bad_frames_in_a_row_are_too_many() -> None:
    strikes = Strikes()
    assert not any(strikes.miss() for _ in range(9))
    strikes.hit()
    assert not any(strikes.miss() for _ in range(9))

    assert strikes.miss()


def test_the_codes_in_the_protocol_are_those_of_the_platform() -> None:
    endings = (conversations.RESTART, conversations.TOO_SLOW, conversations.SILENT, conversations.FLOODING)

    assert [ending.code for ending in endings] == [Close.RESTART, Close.TOO_SLOW, Close.SILENT, Close.RATE]
    assert SIGNED_OUT == Close.SIGNED_OUT
