"""Token buckets with a clock of the test's own."""

from service.platform.server import RateLimits, TokenBucket


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


def test_a_rate_of_zero_is_no_limit() -> None:
    bucket = TokenBucket(0, now=0)
    limits = RateLimits(0, clock=lambda: 0)

    assert {bucket.take(0) for _ in range(1_000)} == {0}
    assert {limits.take("192.0.2.1") for _ in range(1_000)} == {0}
    assert len(limits) == 0


def test_each_address_has_a_bucket_and_a_network_of_ipv6_has_one() -> None:
    limits = RateLimits(1, clock=lambda: 0)

    assert [limits.take("192.0.2.1") for _ in range(3)] == [0, 0, 1]
    assert limits.take("192.0.2.2") == 0
    assert [limits.take(f"2001:db8::{number}") for _ in range(3) for number in (1,)] == [0, 0, 1]
    assert limits.take("2001:db8::ffff:1") == 1
    assert limits.take("2001:db8:0:1::1") == 0


def test_an_address_is_forgotten_once_its_bucket_is_full_again() -> None:
    now = [0.0]
    limits = RateLimits(1, clock=lambda: now[0])
    for number in range(1_000):
        limits.take(f"192.0.{number // 250}.{number % 250}")
    assert len(limits) == 1_000

    for now[0] in (2.0, 4.0, 6.0):
        limits.take("203.0.113.1")

    assert len(limits) == 1


def test_an_address_that_keeps_asking_is_never_forgotten() -> None:
    now = [0.0]
    limits = RateLimits(10, clock=lambda: now[0])
    allowed = 0
    for tick in range(1_000):
        now[0] = tick * 0.01
        allowed += sum(limits.take("192.0.2.1") == 0 for _ in range(5))

    assert 118 <= allowed <= 121  # 20 saved up, and 10 a second for 10 seconds
