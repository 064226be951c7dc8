"""Each kind of setting that pydantic knows, as the environment gives it and as the documents show it."""

from dataclasses import dataclass
from enum import IntFlag
from typing import Annotated, Literal, NamedTuple

import pytest
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    Json,
    JsonValue,
    SecretBytes,
    SecretStr,
    field_serializer,
    field_validator,
)
from pydantic_settings import NoDecode

from service.platform.settings import Catalogue, FeatureSettings, PlatformSettings, documents, effective
from service.platform.settings.words import describe_range


class Login(BaseModel):
    user: str
    password: SecretStr


class Told(BaseModel):
    """A model that tells its secret to whom it is sent, as pydantic's pages show it."""

    password: SecretStr

    @field_serializer("password", when_used="json")
    def _plain(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Box[Inside](BaseModel):
    inside: Inside


@dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    name: str
    number: int = 1


class Token(SecretStr): ...


@dataclass
class Sealed:
    token: Token


class Right(IntFlag):
    READ = 1
    WRITE = 2


def by_semicolons(value: object) -> object:
    return value.split(";") if isinstance(value, str) else value


type BySemicolons = Annotated[tuple[str, ...], NoDecode, BeforeValidator(by_semicolons)]
type Tree = dict[str, Tree]


class Kinds(FeatureSettings):
    word_or_list: Literal["all"] | list[str] = Field("all", description="Which.")
    list_or_word: list[str] | Literal["all"] = Field("all", description="Which.")
    number_or_list: int | list[int] = Field(1, description="Which.")
    list_or_dict: list[int] | dict[str, int] | None = Field(None, description="Which.")
    maybe: list[str] | None = Field(["a"], description="Which.")
    point: Point = Field(Point(0), description="Which.")
    pair: Pair = Field(Pair("a"), description="Which.")
    right: Right = Field(Right.READ, description="Which.")
    raw: Json[list[int]] | None = Field(None, description="Which.")
    anything: JsonValue = Field(None, description="Which.")
    tree: Tree = Field({}, description="Which.")
    rows: list[list[int]] = Field([[1]], description="Which.")
    marks: list[str] = Field(["[a]"], description="Which.")
    blanks: list[str] = Field(["a", ""], description="Which.")
    pairs: frozenset[str] = Field(frozenset({"a,b"}), description="Which.")
    loud: list[str] = Field([], description="Which.")
    own: BySemicolons | None = Field(None, description="Which.")
    told: dict[str, Told] = Field({}, description="Which.")
    tolds: list[Told] = Field([], description="Which.")
    boxed: Box[Login] | None = Field(None, description="Which.")
    sealed: Sealed | None = Field(None, description="Which.")
    blob: SecretBytes | None = Field(None, description="Which.")

    @field_validator("loud", mode="before")
    @classmethod
    def _in_capitals(cls, value: list[str]) -> list[str]:
        return [one.upper() for one in value]


KINDS = Catalogue(PlatformSettings, {"orders": Kinds})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("word_or_list", "all", "all"),
        ("word_or_list", '["a", "b"]', ["a", "b"]),
        ("list_or_word", "all", "all"),
        ("number_or_list", "2", 2),
        ("number_or_list", "[1, 2]", [1, 2]),
        ("list_or_dict", '{"a": 1}', {"a": 1}),
        ("maybe", "null", None),
        ("point", '{"x": 1}', Point(1)),
        ("pair", '{"name": "b", "number": 2}', Pair("b", 2)),
        ("right", "2", Right.WRITE),
        ("raw", "[1, 2]", [1, 2]),
        ("anything", '{"a": [1]}', {"a": [1]}),
        ("tree", '{"a": {}}', {"a": {}}),
        ("loud", "a,b", ["A", "B"]),
        ("loud", '["a,b"]', ["A,B"]),
        ("own", "a,b;c", ("a,b", "c")),
    ],
)
def test_each_kind_is_read_as_pydantic_does(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(f"SERVICE_ORDERS_{name.upper()}", text)
    settings, _ = KINDS.load()

    assert getattr(settings.of(Kinds), name) == value


SEALED = {
    "told": '{"a": {"password": "hunter2"}}',
    "tolds": '[{"password": "hunter2"}]',
    "boxed": '{"inside": {"user": "ada", "password": "hunter2"}}',
    "sealed": '{"token": "hunter2"}',
    "blob": "hunter2",
}


def test_settings_that_are_made_are_taken_as_they_are() -> None:
    assert Kinds.model_validate(made := Kinds()) is made


def test_a_secret_in_any_part_is_one_and_is_shown_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SEALED.items():
        monkeypatch.setenv(f"SERVICE_ORDERS_{name.upper()}", value)

    assert "hunter2" not in documents.table(*KINDS.load())
    assert {one.field for one in documents.secrets(KINDS) if one.group is Kinds} == set(SEALED)


def test_each_default_that_is_shown_is_taken_when_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {variable: value for variable, value, _ in effective(*KINDS.load()) if value and "_ORDERS_" in variable}
    for variable, value in shown.items():
        monkeypatch.setenv(variable, value)
    before, after = Kinds(), KINDS.load()[0].of(Kinds)

    assert shown["SERVICE_ORDERS_POINT"] == '{"x":0,"y":0}'
    assert {field for field in Kinds.model_fields if getattr(before, field) != getattr(after, field)} == set()


def test_only_a_list_alone_is_said_to_be_given_with_commas() -> None:
    told = {field: describe_range(info) for field, info in Kinds.model_fields.items()}
    as_json = {"point", "pair", "tree", "told", "tolds", "boxed", "sealed"}

    assert {field for field, may_be in told.items() if "commas" in may_be} == {
        "maybe",
        "rows",
        "marks",
        "blanks",
        "pairs",
        "loud",
    }
    assert {field for field, may_be in told.items() if "JSON" in may_be} == as_json
    assert {told[field] for field in ("list_or_word", "list_or_dict", "own")} == {"a text"}
