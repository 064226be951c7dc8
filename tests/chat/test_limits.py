"""When patience ends, and by which codes that is said."""

import pytest

from service.chat.conversation import rate_of
from service.chat.limits import Strikes
from service.chat.protocol import Close
from service.platform.http import conversations
from service.platform.identity import SIGNED_OUT
from service.platform.server import TokenBucket


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


@pytest.mark.parametrize("limit", [0.3, 0.7, 1, 1.5, 2.6, 20, 99.9])
def test_who_keeps_to_the_rate_of_hello_is_never_refused(limit: float) -> None:
    said = rate_of(limit)
    assert said is not None
    bucket = TokenBucket(limit, now=0)

    assert not any(bucket.take(turn * said.per_ms / 1000) for turn in range(1_000) for _ in range(said.n))
    assert said.n / said.per_ms * 1000 > 0.99 * limit


def test_without_a_limit_hello_says_none() -> None:
    assert rate_of(0) is None
