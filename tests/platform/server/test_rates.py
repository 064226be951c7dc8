"""Token buckets, in virtual time."""

import gc

from trio.testing import MockClock

from service.platform.server import RateLimits, TokenBucket


def buckets() -> int:
    """Return how many there are in this process, those of other tests that nobody has any more left out."""
    gc.collect()
    return sum(type(one) is TokenBucket for one in gc.get_objects())  # isinstance asks what a weak proxy stands for


def test_a_bucket_allows_a_burst_of_two_seconds_and_then_its_rate() -> None:
    bucket = TokenBucket(10, now=0)

    assert [bucket.take(0) for _ in range(20)] == [0] * 20
    assert bucket.take(0) == 0.1
    assert bucket.take(0.05) == 0.05
    assert bucket.take(0.1) == 0
    assert bucket.take(0.1) > 0
    assert [bucket.take(1_000) for _ in range(21)].count(0) == 20


def test_a_slow_rate_allows_one_at_a_time() -> None:
    bucket = TokenBucket(0.1, now=0)

    assert bucket.take(0) == 0
    assert bucket.take(0) == 10
    assert bucket.take(10) == 0


async def test_a_rate_of_zero_is_no_limit() -> None:
    bucket, before = TokenBucket(0, now=0), buckets()
    limits = RateLimits(0)

    assert {bucket.take(0) for _ in range(1_000)} == {0}
    assert {limits.take("192.0.2.1") for _ in range(1_000)} == {0}
    assert buckets() == before


async def test_each_address_has_a_bucket_and_a_network_of_ipv6_has_one(mock_clock: MockClock) -> None:
    limits = RateLimits(1)

    assert [limits.take("192.0.2.1") for _ in range(3)] == [0, 0, 1]
    assert limits.take("192.0.2.2") == 0
    assert [limits.take(f"2001:db8::{number}") for _ in range(3) for number in (1,)] == [0, 0, 1]
    assert limits.take("2001:db8::ffff:1") == 1
    assert limits.take("2001:db8:0:1::1") == 0


async def test_an_address_is_forgotten_once_its_bucket_is_full_again(mock_clock: MockClock) -> None:
    limits, before = RateLimits(1), buckets()
    for number in range(1_000):
        limits.take(f"192.0.{number // 250}.{number % 250}")
    assert buckets() == before + 1_000

    for _ in range(3):
        mock_clock.jump(2)
        limits.take("203.0.113.1")

    assert buckets() == before + 1


async def test_an_address_of_a_slow_rate_is_remembered_until_it_may_ask_again(mock_clock: MockClock) -> None:
    limits = RateLimits(0.125)
    assert limits.take("192.0.2.1") == 0

    mock_clock.jump(7)

    assert limits.take("192.0.2.1") == 1


async def test_an_address_that_keeps_asking_is_never_forgotten(mock_clock: MockClock) -> None:
    limits = RateLimits(10)
    allowed = 0
    for _ in range(1_000):
        allowed += sum(limits.take("192.0.2.1") == 0 for _ in range(5))
        mock_clock.jump(0.01)

    assert 118 <= allowed <= 121  # 20 saved up, and 10 a second for 10 seconds
