"""What clients send, made into frames or into an error that says what to mend. Pure.

The quick way validates with pydantic alone; only what it refuses is parsed a second time, to name the field.
"""

import json
import math
import re
import unicodedata
from dataclasses import replace

from pydantic import ValidationError

from service.chat.protocol import (
    MAX_LABEL,
    MAX_NAME,
    MAX_TEXT,
    ROOM_PATTERN,
    ClientFrame,
    Code,
    Error,
    Join,
    Leave,
    Ping,
    Pong,
    Post,
    Send,
    adapter_of,
)
from service.platform.errors import Invalid, cut

MAX_SHOWN = 40  # characters of an offending value in an error message
JOINERS = "\u200c\u200d"  # zero width non-joiner and joiner: how letters beside them are written, and pictures joined
MAX_WRITTEN = 4 * MAX_NAME  # as many may one character be written as, and putting more in order takes ever longer
VIRAMA = 9  # its combining class
BLANKS = " \u115f\u1160\u2800\u3164\uffa0"  # the one that is printable, and letters and a pattern that look like it

# What each field must be, in a client author's words; pydantic's own would show a regular expression.
EXPECTED = {
    "type": "one of join, leave, ping, pong, send",
    "room": "1 to 64 of a-z, 0-9 and -",
    "ref": "a string of 1 to 64 characters",
    "id": "a string of 1 to 64 characters, without NUL",
    "text": f"a string of 1 to {MAX_TEXT} characters, without NUL or lone surrogates",
    "from": "a string of 1 to 64 printable characters",
    "since": "an object with epoch and seq",
    "since.epoch": "a string of 1 to 64 characters; only with seq 0 it may be left out",
    "since.seq": "a whole number from 0 to 2^63 - 1",
    "t": "a number within 64 bits, or a string of at most 64 characters",
}


def parse(data: str | bytes) -> Join | Send | Leave | Ping | Pong | Error:
    """Return what a client sent, or the error that tells it what to mend. Never raises."""
    if isinstance(data, bytes):
        return _bad_frame("frame: must be text; this one is binary")
    try:
        frame: Join | Send | Leave | Ping | Pong = adapter_of(ClientFrame).validate_json(data)
    except ValidationError:
        return _explain(data)  # parsed once more, the slow way, which can name the field
    if isinstance(frame, Join) and frame.since is not None and frame.since.seq and frame.since.epoch is None:
        return _bad_frame(f"since.epoch: is missing; must be {EXPECTED['since.epoch']}", ref=frame.ref)
    return frame


def parse_post(document: object) -> Post:
    """Return the body of a POST, its author's name made canonical. Raises Invalid, naming the field."""
    try:
        post: Post = adapter_of(Post).validate_python(document)
    except ValidationError as error:
        raise Invalid(_first_problem(error)[1]) from None
    return post if post.author is None else replace(post, author=parse_name(post.author, field="from"))


def parse_room(room: str) -> str:
    """Return the name of a room. Raises Invalid."""
    if not re.fullmatch(ROOM_PATTERN, room):
        raise Invalid(f"room: must be {EXPECTED['room']}, not {_shown(room)}")
    return room


def parse_name(name: str, *, field: str = "name") -> str:
    """Return a claimed name in its canonical form (NFC), so that equal-looking names are equal. Raises Invalid."""
    canonical = unicodedata.normalize("NFC", name) if len(name) <= MAX_WRITTEN else ""
    if not (0 < len(canonical) <= MAX_NAME and _is_seen(canonical)):
        raise Invalid(f"{field}: must be {EXPECTED['from']}, not {_shown(name)}")
    return canonical


def _is_seen(name: str) -> bool:
    """Whether a name is all that is seen of it: no control of direction, no blank end, no joiner that joins nothing."""
    if name != name.strip(BLANKS):
        return False
    return all(c.isprintable() or (c in JOINERS and _joins(name, at)) for at, c in enumerate(name))


def _joins(name: str, at: int) -> bool:
    """Whether a joiner changes what its neighbours look like. Between other letters nobody would see that it is there.

    It does so beside a virama, which kills a vowel in India's scripts; between letters that are written from right to
    left; and between pictures.
    """
    before, after = name[:at], name[at + 1 : at + 2]
    if any(unicodedata.combining(c) == VIRAMA for c in (before[-1:], after) if c):
        return True
    base = next((c for c in reversed(before) if unicodedata.category(c) != "Mn"), "")
    if not base or not after:
        return False
    from_the_right = all(unicodedata.bidirectional(c) in {"AL", "R"} for c in (base, after))
    return from_the_right or all(unicodedata.category(c) in {"So", "Sk"} for c in (base, after))


def _explain(data: str) -> Error:
    try:
        document = json.loads(data, parse_int=_bounded_int)
    except json.JSONDecodeError as error:
        return _bad_frame(f"frame: must be JSON: {error.msg.lower()} at character {error.pos}")
    except RecursionError:
        return _bad_frame("frame: must be JSON that is not nested this deeply")
    if not isinstance(document, dict):
        return _bad_frame(f"frame: must be a JSON object, not {_shown(document)}")
    id_, ref = _label(document.get("id")), _label(document.get("ref"))
    try:
        adapter_of(ClientFrame).validate_python(document)
    except ValidationError as error:
        code, message = _first_problem(error, skip=1)
        return Error(code=code, message=message, id=id_, ref=ref)
    return _bad_frame("frame: must be JSON without lone surrogates and deep nesting", id_=id_, ref=ref)


def _bad_frame(message: str, *, id_: str | None = None, ref: str | None = None) -> Error:
    return Error(code="bad_frame", message=message, id=id_, ref=ref)


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else math.inf  # longer ones fit no field, and int() refuses 4,300


def _first_problem(error: ValidationError, *, skip: int = 0) -> tuple[Code, str]:
    """Put pydantic's first complaint into our words; `skip` leaves out the name of the union's branch."""
    first = error.errors(include_url=False, include_context=False)[0]
    kind, value = first["type"], first["input"]
    if kind == "union_tag_invalid":
        return "unknown_type", f"type: must be {EXPECTED['type']}, not {_shown(value.get('type'))}"
    if kind == "union_tag_not_found":
        return "bad_frame", f"type: is missing; must be {EXPECTED['type']}"
    parts = [str(part) for part in first["loc"][skip:]]
    field = "t" if parts[:1] == ["t"] else ".".join(parts)  # t is a union: pydantic appends the branch it tried
    expected = EXPECTED.get(field, "a JSON object")
    if kind == "missing":
        return "bad_frame", f"{field}: is missing; must be {expected}"
    if kind == "string_too_long" and field == "text":
        return "too_large", f"text: must be {expected}; this one has {len(value)}"
    return "bad_frame", f"{field or 'body'}: must be {expected}, not {_shown(value)}"


def _shown(value: object) -> str:
    """Return a value for an error message: short, printable, and safe to encode whatever the client sent."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return repr(cut(value, MAX_SHOWN))
    return "a number beyond 64 bits" if value == math.inf else json.dumps(value)


def _label(value: object) -> str | None:
    """Return an id or a ref when it is sane enough to be sent back, so that the client knows which frame was bad."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_LABEL or "\0" in value:
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in value) else value
