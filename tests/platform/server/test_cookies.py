"""What cookies a request has, of all that a browser sends: others of its domain set some of them."""

import time
from collections.abc import Callable

import pytest
from werkzeug.datastructures import Headers
from werkzeug.http import dump_cookie, parse_cookie

from service.platform.server import Request

BLANKS = 2_000


def cookies_of(*sent: str) -> dict[str, list[str]]:
    headers = Headers([("Cookie", one) for one in sent])
    scope: dict[str, object] = {"type": "http"}
    request = Request("GET", "http", "/", b"", headers, "", "1.1", scope, send_push_promise=None)  # type: ignore[arg-type]
    return dict(request.cookies.lists())


def seconds_of(sent: str) -> float:
    """Return the processor time that cookies take, at the best of three."""

    def once() -> float:
        begun = time.thread_time()
        cookies_of(sent)
        return time.thread_time() - begun

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ("a=\xff", {"a": ["\xff"]}),
        ('a="', {}),
        ('a="; z="', {}),
        ("a=" + " " * 100 + '"', {}),
        ("a b=c; =d; e=f g; ;", {}),
    ],
    ids=["no UTF-8", "half a quote", "two halves", "blanks", "no cookies"],
)
def test_a_cookie_beside_another_that_is_none_is_there(others: str, found: dict[str, list[str]]) -> None:
    first, _, last = others.partition("; ")
    assert cookies_of(f"{first}; mine=1; {last}") == found | {"mine": ["1"]}
    assert cookies_of(first, "mine=1", last) == found | {"mine": ["1"]}


def test_cookies_are_read_as_they_are_written() -> None:
    values = ["", "a", "a=b", 'a"b\\c', "a;b, c", "\t", "é", "€\0", "a" * 3_000]
    sent = "; ".join(dump_cookie("n", value).partition("; Path=")[0] for value in values)

    assert cookies_of(sent) == {"n": values}
    assert cookies_of("a=b;c = d ; e; a=f") == {"a": ["b", "f"], "c": ["d"], "e": [""]}
    assert cookies_of("a=b;c = d ; e; a=f") == dict(parse_cookie("a=b;c = d ; e; a=f").lists())


@pytest.mark.parametrize(
    "sent",
    [lambda count: "a=" + " " * count + '"', lambda count: 'a="' + " " * count, lambda count: "a" + " " * count + "b"],
    ids=["behind the name", "behind a quote", "in the name"],
)
def test_blanks_in_a_cookie_are_read_once(sent: Callable[[int], str]) -> None:
    short, long = (seconds_of(sent(count)) for count in (BLANKS, 8 * BLANKS))

    assert long < 32 * max(short, 0.000_1)
