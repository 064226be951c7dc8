"""Whatever a client sends becomes a frame, or an error that names the field. Never an exception."""

import json
import time
import unicodedata
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.chat.parsing import parse, parse_name, parse_post
from service.chat.protocol import Ack, Error, Join, Joined, Leave, Message, Ping, Post, Send, Since, encode
from service.platform.errors import Invalid
from tests.chat.frames import check


@dataclass(frozen=True)
class Bad:
    name: str
    data: str | bytes
    field: str
    code: str = "bad_frame"


def frame(**fields: object) -> str:
    return json.dumps(fields)


def send(**fields: object) -> str:
    return json.dumps({"type": "send", "room": "lobby", "id": "i1", "text": "hi"} | fields)


def join(**fields: object) -> str:
    return json.dumps({"type": "join", "room": "lobby", "ref": "r1"} | fields)


BAD = [
    Bad("binary", b"\x00", "frame"),
    Bad("empty", "", "frame"),
    Bad("not json", "hello", "frame"),
    Bad("cut off", '{"type":"send"', "frame"),
    Bad("a list", "[1]", "frame"),
    Bad("a number", "12", "frame"),
    Bad("nesting of 100,000", "[" * 100_000, "frame"),
    Bad("closed nesting of 100,000", '{"type":"ping","t":' + "[" * 100_000 + "]" * 100_000 + "}", "frame"),
    Bad("no type", "{}", "type"),
    Bad("unknown type", frame(type="shout"), "type", "unknown_type"),
    Bad("type a number", frame(type=1), "type", "unknown_type"),
    Bad("type a list", frame(type=["send"]), "type", "unknown_type"),
    Bad("no room", frame(type="send", id="i", text="hi"), "room"),
    Bad("no text", frame(type="send", room="lobby", id="i"), "text"),
    Bad("no id", frame(type="send", room="lobby", text="hi"), "id"),
    Bad("room a number", send(room=5), "room"),
    Bad("room null", send(room=None), "room"),
    Bad("room with capitals", send(room="Lobby"), "room"),
    Bad("room with newline", send(room="lobby\n"), "room"),
    Bad("room empty", send(room=""), "room"),
    Bad("room of 65", send(room="a" * 65), "room"),
    Bad("id empty", send(id=""), "id"),
    Bad("id of 65", send(id="a" * 65), "id"),
    Bad("id with NUL", send(id="a\0b"), "id"),
    Bad("id a number", send(id=1), "id"),
    Bad("id a lone surrogate", send(id="\ud800"), "id"),
    Bad("text empty", send(text=""), "text"),
    Bad("text of 4,001", send(text="é" * 4_001), "text", "too_large"),
    Bad("text with NUL", send(text="a\0b"), "text"),
    Bad("text with a high surrogate", send(text="a\ud800"), "text"),
    Bad("text with a low surrogate", send(text="\udfffb"), "text"),
    Bad("text a list", send(text=["hi"]), "text"),
    Bad("no ref", frame(type="join", room="lobby"), "ref"),
    Bad("ref a number", join(ref=7), "ref"),
    Bad("since a number", join(since=7), "since"),
    Bad("since without seq", join(since={"epoch": "e"}), "since.seq"),
    Bad("seq a string", join(since={"epoch": "e", "seq": "1"}), "since.seq"),
    Bad("seq a fraction", join(since={"epoch": "e", "seq": 1.5}), "since.seq"),
    Bad("seq beyond 64 bits, as a fraction", join(since={"epoch": "e", "seq": 1e300}), "since.seq"),
    Bad("seq true", join(since={"epoch": "e", "seq": True}), "since.seq"),
    Bad("seq negative", join(since={"epoch": "e", "seq": -1}), "since.seq"),
    Bad("seq beyond 64 bits", join(since={"epoch": "e", "seq": 2**63}), "since.seq"),
    Bad("seq of 5,000 digits", '{"type":"join","room":"a","ref":"r","since":{"seq":' + "9" * 5_000 + "}}", "since.seq"),
    Bad("seq without epoch", join(since={"seq": 5}), "since.epoch"),
    Bad("epoch a number", join(since={"epoch": 5, "seq": 5}), "since.epoch"),
    Bad("t missing", frame(type="ping"), "t"),
    Bad("t a list", frame(type="ping", t=[1]), "t"),
    Bad("t beyond 64 bits", frame(type="ping", t=2**64), "t"),
    Bad("t infinite", '{"type":"ping","t":1e999}', "t"),
    Bad("t not a number", '{"type":"pong","t":NaN}', "t"),
    Bad("t long", frame(type="ping", t="t" * 65), "t"),
    Bad("leave without room", frame(type="leave", ref="r"), "room"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_frame_is_answered_with_its_code_and_the_field_named(bad: Bad) -> None:
    error = parse(bad.data)

    assert isinstance(error, Error)
    assert error.code == bad.code
    assert error.message.startswith(f"{bad.field}: ")
    assert not error.retryable
    assert len(encode(error)) < 400
    if isinstance(bad.data, str):
        check(True, bad.data)


GOOD = [
    (send(), Send(room="lobby", id="i1", text="hi")),
    (send(text="x" * 4_000), Send(room="lobby", id="i1", text="x" * 4_000)),
    (send(text="𝄞🎶\n\t\x7f"), Send(room="lobby", id="i1", text="𝄞🎶\n\t\x7f")),
    (send(room="a" * 64, id="ü" * 64), Send(room="a" * 64, id="ü" * 64, text="hi")),
    (send(unknown={"field": 1}), Send(room="lobby", id="i1", text="hi")),
    (join(), Join(room="lobby", ref="r1")),
    (join(since=None), Join(room="lobby", ref="r1")),
    (join(since={"seq": 0}), Join(room="lobby", ref="r1", since=Since(seq=0))),
    (join(since={"epoch": "e", "seq": 2**63 - 1}), Join(room="lobby", ref="r1", since=Since(epoch="e", seq=2**63 - 1))),
    (join(since={"epoch": "e", "seq": 5.0}), Join(room="lobby", ref="r1", since=Since(epoch="e", seq=5))),
    (join(since={"seq": -0.0}), Join(room="lobby", ref="r1", since=Since(seq=0))),
    (frame(type="leave", room="lobby", ref="r"), Leave(room="lobby", ref="r")),
    (frame(type="ping", t=1.5), Ping(t=1.5)),
    (frame(type="ping", t="x"), Ping(t="x")),
    (frame(type="ping", t=-(2**63) + 1), Ping(t=-(2**63) + 1)),
]


@pytest.mark.parametrize(("data", "expected"), GOOD)
def test_a_good_frame_is_understood(data: str, expected: object) -> None:
    assert parse(data) == expected
    check(True, data)


def test_an_error_carries_the_id_or_ref_of_its_frame_when_that_is_sane() -> None:
    with_id, with_ref = parse(send(text="")), parse(frame(type="leave", ref="r9"))

    assert isinstance(with_id, Error)
    assert with_id.id == "i1"
    assert isinstance(with_ref, Error)
    assert with_ref.ref == "r9"
    for odd in ("\ud800", "", "a" * 65, "a\0b", 7):
        with_odd_id = parse(send(id=odd, text=""))
        assert isinstance(with_odd_id, Error)
        assert with_odd_id.id is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(type="leave", ref="r"), "room: is missing; must be 1 to 64 of a-z, 0-9 and -"),
        (join(since={"epoch": "e"}), "since.seq: is missing; must be a whole number from 0 to 2^63 - 1"),
        (join(ref={}), "ref: must be a string of 1 to 64 characters, not an object"),
        (join(ref=[1]), "ref: must be a string of 1 to 64 characters, not a list"),
        (join(ref=7), "ref: must be a string of 1 to 64 characters, not 7"),
        (
            frame(type="ping", t=2**64),
            "t: must be a number within 64 bits, or a string of at most 64 characters, not a number beyond 64 bits",
        ),
    ],
)
def test_an_error_says_what_is_missing_or_what_was_there(data: str, words: str) -> None:
    error = parse(data)

    assert isinstance(error, Error)
    assert error.message == words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["type", "room", "id", "ref", "text", "since", "t", "seq", "epoch"])
TYPES = st.sampled_from(["join", "send", "leave", "ping", "pong"])
ALMOST_FRAMES = st.builds(lambda fields, kind: fields | {"type": kind}, st.dictionaries(FIELDS, JSON), TYPES)


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(), JSON.map(json.dumps), ALMOST_FRAMES.map(json.dumps), st.binary()))
def test_nothing_makes_the_parser_raise_and_every_answer_can_be_sent(data: str | bytes) -> None:
    answer = parse(data)

    if isinstance(answer, Error):
        json.loads(encode(answer))
        assert answer.message.split(":")[0].split(".")[0] in {
            "frame", "type", "room", "id", "ref", "text", "since", "t",
        }  # fmt: skip


def test_frames_out_say_from_and_leave_out_what_is_absent() -> None:
    message = Message(room="lobby", epoch="e", seq=1, id="i", author="ann", text="é\n", at="2026-01-01T00:00:00.000Z")
    joined = Joined(ref="r", room="lobby", epoch="e", start=4, head=9, gap=False)

    assert json.loads(encode(message)) == {
        "type": "message", "room": "lobby", "epoch": "e", "seq": 1, "id": "i", "from": "ann", "text": "é\n",
        "at": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    assert json.loads(encode(joined))["from"] == 4
    assert json.loads(encode(Error(code="conflict", message="m", id="i"))) == {
        "type": "error", "code": "conflict", "message": "m", "retryable": False, "id": "i",
    }  # fmt: skip
    assert json.loads(encode(Ack(id="i", room="lobby", epoch="e", seq=1, dup=False)))["dup"] is False


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("ann", "ann"),
        ("e\u0301", "é"),
        ("Ann Lee", "Ann Lee"),
        ("李", "李"),
        ("n" * 64, "n" * 64),
        ("e\u0301" * 64, "é" * 64),
        ("\u03b1\u0313\u0300\u0345" * 64, "\u1f82" * 64),  # none is written as more
    ],
)
def test_a_name_is_made_canonical(name: str, canonical: str) -> None:
    assert parse_name(name) == canonical


def test_marks_without_end_are_not_put_in_order() -> None:
    """A POST of 160 kB held the event loop for thirteen seconds, as their number goes into it twice."""

    def taken(name: str) -> float:
        begun = time.thread_time()
        for _ in range(10):
            with pytest.raises(Invalid, match=r"^name: "):
                parse_name(name)
        return time.thread_time() - begun

    assert taken("a" + "\u0315" * 10_000 + "\u0300" * 10_000) < 50 * taken("a" * 20_001)


JOINED = {
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Persian, marked": "\u0645\u064e\u200c\u062e",
    "Hindi": "\u0915\u094d\u200d\u0937",
    "Hindi, not joined": "\u0915\u094d\u200c\u0937",
    "Bengali": "\u09b0\u200d\u09cd\u09af\u09be\u09ac",
    "Malayalam, at the end": "\u0d05\u0d35\u0d28\u0d4d\u200d",
    "Sinhala": "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "rainbow": "\U0001f3f3\ufe0f\u200d\U0001f308",
    "firefighter": "Ada \U0001f469\U0001f3fd\u200d\U0001f692",
}


@pytest.mark.parametrize("name", JOINED.values(), ids=JOINED)
def test_a_name_may_have_joined_letters_and_pictures(name: str) -> None:
    assert parse_name(name) == unicodedata.normalize("NFC", name)


UNSEEN = [
    " Ada", "Ada ", "Ada\u00a0", "\u3164", "Ada\u3164", "\u2800", "\ufeffAda",
    *(f"A{control}da" for control in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
    "A\u200dda", "Ada\u200d", "\u200dAda", "A\u200cda", "\u0645\u06cc\u200c", "\u200c\u0645",
    "\u0645\u200c\u200c\u0645", "\u0645\u202e\u0645", "\u0915\u094d\u202e\u0937",
    "\U0001f468\u200d", "\U0001f468\u200d\u200d\U0001f469", "\U0001f468\u200d a", "\u0915\u094d\u200d\u200d\u0937",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", " ", "n" * 65, "a\0", "a\nb", "\ud800", "a\u200bb", "\u202eevil", *UNSEEN], ids=ascii
)
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match=r"^name: "):
        parse_name(name)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"), ("hi", "body"), (None, "body"), ({}, "text"), ({"text": 5}, "text"), ({"text": ""}, "text"),
        ({"text": "a\0"}, "text"), ({"text": "\ud800"}, "text"), ({"text": "t" * 4_001}, "text"),
        ({"text": "t", "id": ""}, "id"), ({"text": "t", "id": 5}, "id"), ({"text": "t", "from": 5}, "from"),
        ({"text": "t", "from": "a\nb"}, "from"), ({"text": "t", "from": ""}, "from"),
    ],
)  # fmt: skip
def test_a_bad_post_is_refused_with_the_field_named(body: object, field: str) -> None:
    with pytest.raises(Invalid, match=f"^{field}: "):
        parse_post(body)


def test_a_post_needs_no_more_than_a_text() -> None:
    assert parse_post({"text": "hi"}) == Post(text="hi")
    assert parse_post({"text": "hi", "id": "i", "from": "e\u0301"}) == Post(text="hi", id="i", author="é")


@pytest.mark.parametrize("room", ["a", "lobby", "a-1", "-", "a" * 64])
def test_names_of_rooms(room: str) -> None:
    assert isinstance(parse(join(room=room)), Join)


@pytest.mark.parametrize("room", ["", "A", "a_b", "a" * 65, "ü", "a\n", "a/b"])
def test_what_is_no_name_of_a_room(room: str) -> None:
    assert isinstance(parse(join(room=room)), Error)
