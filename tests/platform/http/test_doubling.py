"""Bodies whose work would double at each level: what pydantic does, and which declarations are refused for it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypedDict, Union

import pytest
from pydantic import AfterValidator, AliasChoices, AliasPath, BaseModel, Field, JsonValue, TypeAdapter, create_model
from pydantic import dataclasses as pydantic_dataclasses
from quart_schema.validation import QUART_SCHEMA_REQUEST_ATTRIBUTE

from service.platform.http.openapi.doubling import doubling
from tests.platform.http.calls import calls_of

looks: list[int] = []


def look(number: int) -> int:
    looks.append(number)
    return number


class Leaf(BaseModel):
    op: Literal["leaf"]
    number: Annotated[int, AfterValidator(look)] = 0


class And(BaseModel):
    op: Literal["and"]
    inner: "And | Or | Leaf"


class Or(BaseModel):
    op: Literal["or"]
    inner: "And | Or | Leaf"


class All(BaseModel):
    op: Literal["all"]
    inner: "Tagged"


class Some(BaseModel):
    op: Literal["some"]
    inner: "list[Tagged]"


type Tagged = Annotated[All | Some | Leaf, Field(discriminator="op")]


class Not(BaseModel):
    negated: "Not | Both | Leaf"


class Both(BaseModel):
    all_of: "list[Not | Both | Leaf]"


class Bold(TypedDict):
    children: "list[Text]"


class Italic(TypedDict):
    children: "list[Text]"


type Text = str | Bold | Italic


@pydantic_dataclasses.dataclass
class Plus:
    terms: "list[Term] | None" = None


@pydantic_dataclasses.dataclass
class Times:
    terms: "tuple[Term, ...]" = ()


type Term = int | Plus | Times


class Folder(BaseModel):
    kids: "dict[str, Folder | Link]"


class Link(BaseModel):
    kids: "str | dict[str, Folder | Link]" = ""


class Renamed(BaseModel):
    within: "Named | Renamed | None" = Field(None, validation_alias="held")


class Named(BaseModel):
    held: "Named | Renamed | None" = None


class Apart(BaseModel):
    held: "Away | Apart | None" = Field(None, validation_alias="apart")


class Away(BaseModel):
    held: "Away | Apart | None" = None


class Either(BaseModel):
    held: "Given | Either | None" = Field(None, validation_alias=AliasChoices("apart", AliasPath("within", 0)))


class Given(BaseModel):
    within: "Given | Either | None" = None


class Deep(BaseModel):
    held: "Shallow | Deep | None" = Field(None, validation_alias=AliasPath("apart", "within"))


class Shallow(BaseModel):
    within: "Shallow | Deep | None" = None


class ByBoth(BaseModel, validate_by_name=True):
    held: "ByBoth | Plain | Leaf" = Field(validation_alias="apart")


class Plain(BaseModel):
    held: "ByBoth | Plain | Leaf"


class ByName(BaseModel, validate_by_name=True, validate_by_alias=False):
    apart: "ByName | Other | None" = Field(None, validation_alias="held")


class Other(BaseModel):
    held: "ByName | Other | None" = None


class Tree(BaseModel):
    type: "Tree | list[Tree] | None" = None
    name: str | int = ""


class Section(BaseModel):
    title: str
    children: "list[Section | Paragraph]"


class Paragraph(BaseModel):
    children: list[str | Leaf]


class Within(BaseModel):
    filters: Sequence[And | Or]


class Negation(BaseModel):
    op: str
    of: "Negation | Conjunction | Leaf"


class Conjunction(BaseModel):
    op: str
    of: "list[Negation | Conjunction | Leaf]"


class Extra(BaseModel, extra="allow"):
    __pydantic_extra__: "dict[str, Extra | Amount | int]"


class Amount(BaseModel):
    a: "Extra | Amount | int" = 0


class Left(BaseModel):
    inner: "dict[str, Left | Right | int]"


class Right(BaseModel):
    inner: "list[Left | Right | int]"


type Json = dict[str, Json] | list[Json] | str | int | float | bool | None
type Loose = dict[str, Loose] | Holder | int
type Lists = list[Lists] | tuple[Lists, ...] | int


class Holder(BaseModel):
    held: Loose


def lines(model: object) -> list[str]:
    """Return what is said of a route that declares such a body, and of one that declares none."""
    view = SimpleNamespace(**{QUART_SCHEMA_REQUEST_ATTRIBUTE: (model, None)})
    return list(doubling([("POST /a (a.b)", view), ("GET /a (a.c)", SimpleNamespace())]))


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (And, "And | Or"),
        (Within, "And | Or"),
        (list[And], "And | Or"),
        (Text, "Bold | Italic"),
        (Term, "Plus | Times"),
        (Folder, "Folder | Link"),
        (Renamed, "Named | Renamed"),
        (Either, "Given | Either"),
        (ByBoth, "ByBoth | Plain"),
        (Extra, "Extra | Amount"),
        (Loose, "dict | Holder"),
        (Lists, "list | tuple"),
    ],
)
def test_kinds_that_hold_each_other_in_one_place_are_refused(model: object, kinds: str) -> None:
    [line] = lines(model)

    assert line.startswith(f"POST /a (a.b): takes {kinds}, which hold each other again")
    assert line.endswith("tell them apart by Field(discriminator=…), a field or a function")


@pytest.mark.parametrize(
    "model",
    [All, Tagged, Not, Negation, Left, Tree, Apart, Deep, ByName, Section, Json, JsonValue, dict[str, Any], Leaf | Not],
)
def test_others_are_taken(model: object) -> None:
    assert not lines(model)


def test_a_union_of_many_that_does_not_hold_itself_stops_no_start_for_long() -> None:
    """Such as the events of a webhook, each with the same within: pair by pair it took 20 s."""
    held: Any = str
    for number in range(30):
        held = create_model(f"Held{number}", held=(held, ...), **{f"f{field}": (str, "") for field in range(10)})  # type: ignore[call-overload]
    events = [create_model(f"Event{number}", one=(held, ...), two=(held, ...)) for number in range(100)]
    union: Any = Union[tuple(events)]  # noqa: UP007  of as many
    found: list[str] = []

    assert calls_of(lambda: found.extend(lines(union))) < 2_000_000
    assert not found


def nested(depth: int) -> dict[str, Any]:
    body: dict[str, Any] = {"op": "leaf"} | {"number": 1}
    for _ in range(depth):
        body = {"op": "or", "inner": body}
    return body


def looks_at(model: Any, body: object) -> int:
    looks.clear()
    TypeAdapter(model).validate_python(body)
    return len(looks)


def test_trap_each_level_of_such_a_union_doubles_the_work() -> None:
    assert [looks_at(And | Or | Leaf, nested(depth)) for depth in (1, 2, 3, 8)] == [2, 4, 8, 256]


def test_trap_a_field_that_is_read_by_its_name_too_doubles_it_by_that_name() -> None:
    body: dict[str, Any] = {"op": "leaf", "number": 1}
    for _ in range(8):
        body = {"held": body}

    assert looks_at(ByBoth | Plain | Leaf, body) == 256


def test_each_level_of_one_with_a_tag_is_looked_at_once() -> None:
    body: dict[str, Any] = {"op": "leaf", "number": 1}
    for _ in range(50):
        body = {"op": "all", "inner": body}

    assert looks_at(Tagged, body) == 1
