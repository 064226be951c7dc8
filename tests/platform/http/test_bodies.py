"""Bodies: JSON is read strictly, and each that cannot be read is a 400 that says where."""

import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import trio
from pydantic import Field
from pydantic.dataclasses import dataclass
from quart import Blueprint, request
from quart_schema import validate_request

from service.platform.errors import Invalid, cut, shown
from service.platform.feature import Feature, Resources
from service.platform.http import read_json, takes
from service.platform.http.bodies import LARGE, TURNS
from service.platform.http.limits import unlimited
from service.platform.http.turns import Turns
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from tests.platform.http.calls import calls_of

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Told:
    text: Annotated[str, Field(max_length=5, description="at most 5 characters")]
    inner: Inner | None = None
    anything: Any = None


@asynccontextmanager
async def open_telling(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("telling", __name__)

    @routes.post("/declared")
    @anyone
    @unlimited("a test's")
    @validate_request(Told)
    async def declared(data: Told) -> dict[str, Any]:
        return {"text": data.text, "anything": data.anything}

    @routes.post("/plain")
    @anyone
    @unlimited("a test's")
    async def plain() -> dict[str, Any]:
        return {"body": await request.get_json()}

    @routes.post("/form")
    @anyone
    @unlimited("a test's")
    @takes("application/x-www-form-urlencoded", "multipart/form-data")
    async def form() -> dict[str, int]:
        return {"fields": len(await request.form)}

    yield routes


TELLING = Feature("telling", open=open_telling)

PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'

UNREADABLE = [
    (b"", "body: is missing; must be JSON"),
    (b"{", "body: must be JSON: expecting property name enclosed in double quotes at line 1, column 2"),
    (b'{"text": "a",\n "b" 1}', "body: must be JSON: expecting ':' delimiter at line 2, column 6"),
    (b'{"text": "a\tb"}', "body: must be JSON: invalid control character at line 1, column 12"),
    (b'{"text": "a"} x', "body: must be JSON: extra data at line 1, column 15"),
    (b'{\n"text": "a\xff"}', "body: must be JSON in UTF-8: the byte 0xff at line 2, column 11 is not"),
    ("é".encode() + b"\xe9", "body: must be JSON in UTF-8: the byte 0xe9 at line 1, column 2 is not"),
    ('{"text": "a"}'.encode("utf-16"), "body: must be JSON in UTF-8: the byte 0xff at line 1, column 1 is not"),
    (
        '{"text": "a"}'.encode("utf-16-le"),
        "body: must be JSON in UTF-8; from line 1, column 1 on it looks like UTF-16 or UTF-32",
    ),
    (
        '{"text": "a"}'.encode("utf-8-sig"),
        "body: must be JSON in UTF-8 without a byte order mark; there is one at line 1, column 1",
    ),
    (b"[" * 100_000, "body: must be at most 100 levels deep; it is deeper at line 1, column 101"),
    (
        b'{"a": ' + b'"[",\n"b": [' * 1 + b"[" * 100 + b"]" * 101 + b"}",
        "body: must be at most 100 levels deep; it is deeper at line 2, column 105",
    ),
    (b"[" * 99 + b"\\[[", "body: must be at most 100 levels deep; it is deeper at line 1, column 102"),
    (b"[" * 99 + b"\\[]]", "body: must be JSON: expecting value at line 1, column 100"),
    (b'{"text": NaN}', "text: must be JSON, which has no NaN"),
    (b'{"text": "a", "anything": [1, {"b": -Infinity}]}', "anything.1.b: must be JSON, which has no -Infinity"),
    (b'{"text": "a", "anything": 1e400}', "anything: must be a number within 64 bits, not 1e400"),
    (b'{"text": "a", "anything": ' + b"9" * 5_000 + b"}", "anything: has more than 4300 digits"),
    (b'{"text": "a", "anything": [-' + b"9" * 4_300 + b", NaN]}", "anything.1: must be JSON, which has no NaN"),
    (b'{"text": "a", "text": "b"}', "text: is given twice"),
    (b'{"text": NaN', "body: must be JSON: expecting ',' delimiter at line 1, column 13"),
    (b'{"text": "a", "text": "b"} x', "body: must be JSON: extra data at line 1, column 28"),
    (b'{"text": 1e400,}', "body: must be JSON: illegal trailing comma before end of object at line 1, column 15"),
    (b"[" + b"9" * 5_000, "body: must be JSON: expecting ',' delimiter at line 1, column 5002"),
    (b'{"text": "a", "anything": {"c": {}, "c": {}}}', "anything.c: is given twice"),
    (
        b'{"text": "a", "anything": ["\\ud800"]}',
        "anything.0: must be whole characters; this has half of a surrogate pair",
    ),
    (
        b'{"text": "a", "anything": {"\\udfff": 1}}',
        "anything: must have names of whole characters; one has half of a surrogate pair",
    ),
]


@pytest.mark.parametrize("path", ["/declared", "/plain"])
async def test_a_body_that_cannot_be_read_is_a_400_that_says_where(make_settings: MakeSettings, path: str) -> None:
    async with booted(make_settings(**FREE), [TELLING]) as urls, Client(urls.public) as client:
        answers = [await client.post(path, content=body, headers=JSON) for body, _ in UNREADABLE]

    assert [(one.status_code, one.json()["detail"]) for one in answers] == [(400, detail) for _, detail in UNREADABLE]


UNFIT = [
    (b"[1]", "body: must be a JSON object, not '[1]'"),
    (b"null", "body: must be a JSON object, not 'None'"),
    (b'"text"', "body: must be a JSON object, not 'text'"),
    (b"{}", "text: is missing; must be at most 5 characters"),
    (b'{"text": "too long"}', "text: must be at most 5 characters, not 'too long'"),
    (b'{"text": "a", "inner": 1}', "inner: must be a JSON object, not '1'"),
]


async def test_a_body_of_a_wrong_shape_is_a_400_that_names_the_field(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [TELLING]) as urls, Client(urls.public) as client:
        answers = [await client.post("/declared", content=body, headers=JSON) for body, _ in UNFIT]
        nothing = await client.post("/declared")

    assert [(one.status_code, one.json()["detail"]) for one in answers] == [(400, detail) for _, detail in UNFIT]
    assert (nothing.status_code, nothing.json()["detail"]) == (400, "body: is missing; must be JSON")


@pytest.mark.parametrize(
    ("encoding", "status", "said"),
    [("gzip", 415, "'gzip'"), ("br, gzip", 415, "'br, gzip'"), ("identity", 200, ""), ("IDENTITY", 200, "")],
)
async def test_a_body_that_is_encoded_is_refused_as_that_and_not_as_bad_json(
    make_settings: MakeSettings, encoding: str, status: int, said: str
) -> None:
    async with booted(make_settings(**FREE), [TELLING]) as urls, Client(urls.public) as client:
        headers = JSON | {"Content-Encoding": encoding}
        sent: dict[str, Any] = {"content": b'{"text": "a"}', "headers": headers}
        answers = [await client.post(path, **sent) for path in ("/declared", "/plain")]

    assert [one.status_code for one in answers] == [status] * 2
    if said:
        right = "body: must be sent without Content-Encoding"
        assert [one.json()["detail"] for one in answers] == [f"{right}, not as {said}"] * 2


@pytest.mark.parametrize(
    "body",
    [
        b' {"a": [1, 2.5, -3e2, true, null, "\\ud83d\\ude00 [[[ \\" ]"]} \n',
        b'"[' + b"[" * 1_000 + b'"',
        b"[" * 100 + b"]" * 100,
        b"[" + b"[]," * 1_000 + b"1]",
        b"9" * 4_300,
    ],
)
def test_whatever_else_is_json_is_read(body: bytes) -> None:
    assert read_json(body) is not None


def test_a_deep_list_is_found_among_ever_more_that_are_less_deep() -> None:
    """So that each level holds a good part of all brackets, as in what is wide and not deep."""
    lists: list[bytes] = []
    most = 1.0
    for depth in range(150, 0, -2):
        most /= 0.88
        nested = b'{"":[' * (depth // 2) + b"1" + b"]}" * (depth // 2)
        lists += [nested] * (int(most) - len(lists))

    with pytest.raises(Invalid, match="at most 100 levels deep"):
        read_json(b"[" + b",".join(lists) + b"]")


UNENDED = [
    b"[" * 101 + b'"' + b'\\"' * 15_000,
    b'"' + b'\\"' * 15_000 + b"[" * 101,
    b"[" * 101 + b'"' + b'\\"' * 15_000 + b"\\",
]


@pytest.mark.parametrize("number", range(len(UNENDED)))
def test_a_text_without_an_end_is_read_once_and_not_from_each_of_its_quotes(number: int) -> None:
    """A body of 64 KiB, which anybody may send, held the event loop for a minute."""

    def taken(body: bytes) -> float:
        begun = time.thread_time()
        with pytest.raises(Invalid):
            read_json(body)
        return time.thread_time() - begun

    ended = b"[" + b'"\\"\\"\\"",' * 3_000

    assert taken(UNENDED[number]) < 50 * taken(ended)


def seconds_of(act: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.thread_time()
        act()
        return time.thread_time() - begun

    return min(once() for _ in range(3))


def refused(body: bytes) -> str:
    with pytest.raises(Invalid) as error:
        read_json(body)
    return str(error.value)


WRONG_AT_THE_END = [
    (b"1", b"NaN", ": must be JSON, which has no NaN"),
    (b"1", b'{"a":1,"a":1}', ".a: is given twice"),
    (b"null", b"1e400", ": must be a number within 64 bits, not 1e400"),
    (b'"a"', b'"\\ud800"', ": must be whole characters; this has half of a surrogate pair"),
    (b"[]", b'{"\\ud800":1}', ": must have names of whole characters; one has half of a surrogate pair"),
]


@pytest.mark.parametrize(("value", "wrong", "said"), WRONG_AT_THE_END)
def test_what_is_wrong_behind_many_values_is_found_without_a_look_at_each(
    value: bytes, wrong: bytes, said: str
) -> None:
    """1 MiB of numbers with a NaN behind them was read again in Python: fifteen times what they take."""
    many = 10_000
    body = b"[" + b",".join([*[value] * many, wrong]) + b"]"

    assert refused(body) == f"{many}{said}"
    assert calls_of(lambda: refused(body)) < many


PRIME = sys.hash_info.modulus
ALIKE = {
    "numbers": lambda number: b"%d" % (PRIME * number),
    "below zero": lambda number: b"%d" % (-PRIME * number),
    "keys": lambda number: b'{"%d": 1}' % (PRIME * number),
    "texts": lambda number: b'"%d.0"' % (PRIME * number),
    "in between": lambda number: b'"%d_%d"' % divmod(PRIME * number, 10),
    "escaped": lambda number: b'"\\u0030%d\\u002e0"' % (PRIME * number),
    "uuids": lambda number: str(uuid.UUID(int=PRIME * number)).encode().join([b'"', b'"']),
    "uuids without hyphens": lambda number: uuid.UUID(int=PRIME * number).hex.encode().join([b'"', b'"']),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_numbers_that_are_made_to_be_one_to_a_set_are_refused(kind: str) -> None:
    """1 MiB of them, declared as `set[int]`, held the event loop for ten seconds."""
    body = b"[" + b",".join(map(ALIKE[kind], range(1, 2_000))) + b"]"

    assert "of one remainder" in refused(body)


@pytest.mark.parametrize(
    "one",
    [
        lambda number: b"%d" % (PRIME * 77),
        lambda number: b"%d" % (10**24 + number**3),
        lambda number: f'"{uuid.UUID(int=number * 7 + 10**30)}"'.encode(),
        lambda number: b'"%030d"' % number,
        lambda number: b'"%032x"' % number,
    ],
)
def test_other_long_numbers_are_read_however_many(one: Callable[[int], bytes]) -> None:
    assert len(read_json(b"[" + b",".join(map(one, range(1, 5_000))) + b"]")) == 4_999


SHOWN = [
    [1] * 200,
    {"a": [{"b": "c" * 200}]},
    "d" * 200,
    [[[]] * 100, {}],
    {str(number): number for number in range(200)},
    [None, 1.5, True, "e", {"f": []}],
    10**200,
]


@pytest.mark.parametrize("value", SHOWN)
def test_of_a_value_is_shown_how_it_begins(value: object) -> None:
    assert shown(value) == cut(str(value))


def test_what_is_shown_of_a_body_costs_no_more_than_that() -> None:
    """Of one of 1 MiB that is a list where an object was declared all was written: twice as long as it took to read."""
    few, many = [[1]] * 200, [[1]] * 200_000

    assert seconds_of(lambda: shown(many)) < 10 * seconds_of(lambda: shown(few))


@pytest.mark.parametrize(
    ("path", "media", "small"),
    [
        ("/plain", "application/json", b"[{}]"),
        ("/declared", "application/json", b'{"text": "a"}'),
        ("/form", "application/x-www-form-urlencoded", b"a=1"),
        ("/form", "multipart/form-data; boundary=b", PART),
    ],
)
async def test_large_bodies_are_read_in_turns_and_small_ones_pass_them(
    make_settings: MakeSettings, path: str, media: str, small: bytes
) -> None:
    """32 clients whose bodies take half a second each left a probe unanswered for six."""
    turns: list[Turns] = []

    @asynccontextmanager
    async def open_turns(_: Resources) -> AsyncIterator[Blueprint]:
        routes = Blueprint("turns", __name__)
        routes.record_once(lambda state: turns.append(state.app.extensions[TURNS]))
        yield routes

    answers: list[int] = []
    async with (
        booted(make_settings(**FREE), [TELLING, Feature("turns", open=open_turns)]) as urls,
        Client(urls.public) as client,
        trio.open_nursery() as nursery,
    ):

        async def send(body: bytes) -> int:
            return (await client.post(path, content=body, headers={"Content-Type": media})).status_code

        async def send_large() -> None:
            answers.append(await send(small + b" " * LARGE))

        async with turns[0].take():
            nursery.start_soon(send_large)
            with trio.fail_after(30):
                while not turns[0].waiting:
                    await trio.sleep(0.01)
            assert await send(small) == 200
            assert answers == []

    assert answers == [200]
