"""Bodies that clients send: JSON is read strictly, and what cannot be read is told with its place; others by `takes`.

What is large is read in turns, as reading it holds the event loop: 1 MiB that is made for that for half a second.

Strictly is: UTF-8 without a mark, no NaN, no number that is none here, no key twice, no half of a character, and not
too deep. Otherwise two programs would read one document differently, and it might hold what no database stores.
"""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import accumulate, compress, count, islice
from operator import sub
from typing import Any, Never, cast

from quart import current_app
from quart.formparser import FormDataParser
from quart.wrappers import Body
from quart_trio.formparser import TrioFormDataParser
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from service.platform.errors import Invalid, UnsupportedMedia, cut
from service.platform.http.openapi.many import refuse_first
from service.platform.http.openapi.numbers import refuse_mistaken
from service.platform.http.turns import Turns
from service.platform.identity import declared
from service.platform.server import UNASKED_TYPES, Request

TURNS = "service.turns"  # where an application keeps those of its large bodies
LARGE = 1 << 14  # bytes; a smaller one holds the event loop for some milliseconds at most
MOST_DEEP = 100  # objects and lists in each other; what comes of a document is walked by functions that call themselves
MOST_DIGITS = 4300  # of a whole number, Python's own limit

# A text that has no end goes on to that of the body. Were it none, each of its quotes would be tried as a beginning.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = re.compile(rb'(?:[^"\[\]{}]|' + _TEXT.pattern + rb")*+[\[\]{}]", re.DOTALL)  # each with what is before it
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"\\'))
_STEPS = bytes.maketrans(b"[{]}", b"\2\2\0\0")  # one more than they go down or up, as a byte has no sign
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD]")
_TOO_MANY_DIGITS = re.compile(rf"[0-9]{{{MOST_DIGITS + 1}}}")

# Whole numbers, and UUIDs, which are such, are kept in a set or mapping by their remainder: no secret goes into it.
_PRIME = sys.hash_info.modulus
MOST_ALIKE = 200
_MANY_LONG = 1_000  # as many take some milliseconds to put into a set, whatever they are
_DIGITS, _HEX = (
    bytes(byte if byte == ord("-") else ord("0" if byte in of else " ") for byte in range(256))
    for of in (b"0123456789", b"0123456789abcdefABCDEF")
)
_LONG = re.compile(rb"[0-9]{19,}")
_UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE)
_ESCAPED = re.compile(rb"\\u00[2-6]")  # what numbers are written with

_FORMS = TrioFormDataParser.parse_functions
_FIELDS, _PARTS = "application/x-www-form-urlencoded", "multipart/form-data"

_MEDIA = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]*")


def takes[F: Callable[..., object]](*media: str) -> Callable[[F], F]:
    """Declare that a route takes bodies of these types too, beside `application/json`: `takes("application/pdf")`.

    Its view reads them itself, part by part (`async for part in request.body`) or whole (`await request.get_data()`).
    What a form may have, `text/plain` too, any page may send unasked: it is taken at a route for anyone, from who sends
    no Origin, and no cookie says who that is. Raises ValueError for what is no media type.
    """
    types = tuple(one.lower() for one in media)
    for one in types:
        if not _MEDIA.fullmatch(one):
            raise ValueError(f"takes: must be a media type such as application/pdf, without parameters, not {one!r}")
    if not types:
        raise ValueError("takes: say which media types")

    def declare(view: F) -> F:
        view.takes = types  # type: ignore[attr-defined]  # a function takes attributes
        return view

    return declare


def closed_to_forms(routes: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield a line for each of some routes, each a name and its view, that takes a form and wants to know who asks."""
    for name, view in routes:
        may = declared(view)
        if may is not None and may.signed_in and (found := UNASKED_TYPES.intersection(getattr(view, "takes", ()))):
            yield (
                f"{name}: takes {', '.join(sorted(found))}, which a page of any origin may send unasked:"
                " declare @anyone, and have a signature say who sends it"
            )


type _Parsed = tuple[MultiDict[str, Any], MultiDict[str, Any]]


def _turn() -> AbstractAsyncContextManager[None]:
    turns: Turns = current_app.extensions[TURNS]
    return turns.take()


async def _parse_fields(parser: FormDataParser, body: Body, *how: Any) -> _Parsed:
    encoded = await body
    if parser.max_form_parts is not None and encoded.count(b"&") >= parser.max_form_parts:
        raise RequestEntityTooLarge(f"a form has at most {parser.max_form_parts} fields")
    async with _turn() if len(encoded) > LARGE else nullcontext():
        return await _FORMS[_FIELDS](parser, body, *how)


class _InTurns(AsyncIterator[bytes]):
    """A body that is taken apart as it comes: each piece in a turn, which ends when the next one is asked for."""

    def __init__(self, body: Body) -> None:
        self._pieces = aiter(body)
        self._size = 0
        self._taken: AbstractAsyncContextManager[None] | None = None

    async def __anext__(self) -> bytes:
        await self.end_turn()
        piece = await anext(self._pieces)
        self._size += len(piece)
        if self._size > LARGE:
            turn = _turn()
            await turn.__aenter__()
            self._taken = turn
        return piece

    async def end_turn(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            await taken.__aexit__(None, None, None)


async def _parse_parts(parser: FormDataParser, body: Body, *how: Any) -> _Parsed:
    pieces = _InTurns(body)
    try:
        return await _FORMS[_PARTS](parser, cast(Body, pieces), *how)
    finally:
        await pieces.end_turn()  # noqa: ASYNC102  # it does not wait


class _FormParser(TrioFormDataParser):
    parse_functions = _FORMS | {_FIELDS: _parse_fields, _PARTS: _parse_parts}

    async def parse(self, body: Body, mimetype: str, *how: Any, **more: Any) -> _Parsed:
        """Return fields and files. Raises Invalid for what is no form, which Quart takes for one without any."""
        self.silent = False
        try:
            return await super().parse(body, mimetype, *how, **more)
        except ValueError:
            raise Invalid(f"body: must be {mimetype}, and cannot be read as that") from None


class JsonRequest(Request):
    """A request whose body is read by `read_json`."""

    form_data_parser_class = _FormParser

    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the document; without `silent` raises Invalid or UnsupportedMedia, which say what is wrong with it."""
        body = cast(bytes, await self.get_data(cache=cache, as_text=False))
        if body and not (force or self.is_json):
            return None
        try:
            self._refuse_encoded()
            if len(body) <= LARGE:
                return self._read(body)
            async with _turn():
                return self._read(body)
        except (Invalid, UnsupportedMedia):
            if silent:
                return None
            raise

    def _read(self, body: bytes) -> Any:
        document = read_json(body)
        refuse_mistaken(body, document, self.url_rule)
        refuse_first(body, document, self.url_rule)
        return document

    def _refuse_encoded(self) -> None:
        encoding = self.headers.get("Content-Encoding", "")
        if encoding.lower() not in {"", "identity"}:
            raise UnsupportedMedia(f"body: must be sent without Content-Encoding, not as {cut(encoding)!r}")


def read_json(body: bytes) -> Any:
    """Return the document that is a body. Raises Invalid, with the line and column or the field that is wrong."""
    text = _decode(body)
    _refuse_deep(body)
    try:
        document = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise Invalid(_misread(error)) from None
    except ValueError:  # a number of too many digits, or one of ours
        raise Invalid(_complaint(text)) from None
    if _ESCAPED_HALF.search(text) and (wrong := _first_wrong(document, halves=True)) is not None:
        raise Invalid(_told(*wrong))
    if len(body) > LARGE:
        _refuse_alike(body, document)
    return document


def _misread(error: json.JSONDecodeError) -> str:
    what = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
    return f"body: must be JSON: {what} at line {error.lineno}, column {error.colno}"


def _decode(body: bytes) -> str:
    if not body:
        raise Invalid("body: is missing; must be JSON")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        where, byte = _place(body[: error.start].decode()), body[error.start]
        raise Invalid(f"body: must be JSON in UTF-8: the byte 0x{byte:02x} at {where} is not") from None
    if text[0] == "\ufeff":
        raise Invalid("body: must be JSON in UTF-8 without a byte order mark; there is one at line 1, column 1")
    if "\0" in text[:2]:
        raise Invalid("body: must be JSON in UTF-8; from line 1, column 1 on it looks like UTF-16 or UTF-32")
    return text


def _refuse_deep(body: bytes) -> None:
    """Raise Invalid for a document that is too deep.

    Its brackets are counted ahead of reading and within C alone: a loop of Python's takes many times what reading does.
    Only brackets and quotes are kept, if nothing is escaped. Texts without brackets are then two quotes: gone, and if
    no quote is left, nothing else went.
    """
    kept = body.translate(None, _NO_BRACKETS)
    if len(kept) <= MOST_DEEP:
        return
    kept = kept.replace(b'""', b"")
    if b"\\" in kept or b'"' in kept:
        kept = _TEXT.sub(b"", body).translate(None, _NO_BRACKETS + b"\\")
    depths = map(sub, accumulate(kept.translate(_STEPS)), count(1))
    too_deep = next(compress(count(), map(MOST_DEEP.__lt__, depths)), None)
    if too_deep is not None:
        bracket = next(islice(_BRACKETS.finditer(body), too_deep, None))
        where = _place(body[: bracket.end() - 1].decode())
        raise Invalid(f"body: must be at most {MOST_DEEP} levels deep; it is deeper at {where}")


def _place(before: str) -> str:
    """Return line and column of what comes after a text."""
    return f"line {before.count('\n') + 1}, column {len(before) - before.rfind('\n')}"


# The quick reading, which only notices that something is wrong.


def _refuse(_: str) -> Never:
    raise ValueError


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _refuse("")


def _refuse_alike(body: bytes, document: object) -> None:
    """Raise Invalid for numbers that are made for it to be one to a set, or to a mapping that has them as its keys.

    Each is compared with all before it: 1 MiB of multiples of 2^61 - 1, declared as `set[int]`, held the event loop for
    ten seconds. Which of them will be put into one, nobody knows here; a view may do it too, by their ids.
    """
    if _ESCAPED.search(body):
        body = json.dumps(document).encode()
    body = body.replace(b"_", b"")  # pydantic reads past them
    if body.translate(_DIGITS).count(b"0" * 19) >= _MANY_LONG:
        long = {digits.lstrip(b"0") for digits in _LONG.findall(body)}
        _refuse_one_remainder(int(digits) for digits in long if 0 < len(digits) <= MOST_DIGITS)
    shape = body.translate(_HEX)
    if max(shape.count(b"-" + b"0" * 12), shape.count(b"0" * 32)) >= _MANY_LONG:
        _refuse_one_remainder(int(one, 16) for one in {one.replace(b"-", b"").lower() for one in _UUID.findall(body)})


def _refuse_one_remainder(numbers: Iterable[int]) -> None:
    if max(Counter(map(_PRIME.__rmod__, numbers)).values(), default=0) > MOST_ALIKE:
        raise Invalid(f"body: must have at most {MOST_ALIKE} numbers, or UUIDs, of one remainder by {_PRIME}")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)

# The slow reading of what was refused: whatever is wrong becomes a Wrong in its place, and the first is told.


class _Wrong(str):
    """What is wrong with the value that it stands for."""

    __slots__ = ()


def _mark_number(digits: str) -> object:
    if (whole := digits.lstrip("-")).isdecimal():
        return int(digits) if len(whole) <= MOST_DIGITS else _Wrong(f"has more than {MOST_DIGITS} digits")
    number = float(digits)
    return number if math.isfinite(number) else _Wrong(f"must be a number within 64 bits, not {cut(digits)}")


def _mark_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    made = {}
    for key, value in pairs:
        made[key] = _Wrong("is given twice") if key in made else value
    return made


def _marking(*, digits: bool) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_mark_twice,
        parse_constant=lambda word: _Wrong(f"must be JSON, which has no {word}"),
        parse_float=_mark_number,
        parse_int=_mark_number if digits else None,
    )


# Without digits it is C that reads whole numbers, in a tenth of the time.
_MARKING, _MARKING_DIGITS = _marking(digits=False), _marking(digits=True)
_NEVER_WRONG = frozenset({int, float, bool, type(None)})


def _complaint(text: str) -> str:
    """Return what is wrong first, after the name of its field; where the text is no JSON behind that, that is told."""
    try:
        document = (_MARKING_DIGITS if _TOO_MANY_DIGITS.search(text) else _MARKING).decode(text)
    except json.JSONDecodeError as error:
        return _misread(error)
    wrong = _first_wrong(document, halves=_ESCAPED_HALF.search(text) is not None)
    assert wrong is not None  # noqa: S101  # it was refused
    return _told(*wrong)


def _told(path: list[str], wrong: str) -> str:
    return f"{cut('.'.join(reversed(path))) or 'body'}: {wrong}"


def _first_wrong(value: object, *, halves: bool) -> tuple[list[str], str] | None:
    """Return the place of what is wrong first, from the inside out, and what it is; `halves` are looked for if told.

    A body may have half a million values: each that can be none of these costs a look at its type.
    """
    if isinstance(value, _Wrong):
        return [], value
    if isinstance(value, str):
        half = halves and not value.isascii() and _HALF.search(value)
        return ([], "must be whole characters; this has half of a surrogate pair") if half else None
    if not isinstance(value, list | dict):
        return None
    items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if halves and isinstance(key, str) and not key.isascii() and _HALF.search(key):
            return [], "must have names of whole characters; one has half of a surrogate pair"
        kind = type(inner)
        if kind in _NEVER_WRONG or (kind is str and (not halves or inner.isascii())) or not (kind is _Wrong or inner):
            continue
        if (found := _first_wrong(inner, halves=halves)) is not None:
            found[0].append(str(key))
            return found
    return None
