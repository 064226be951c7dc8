"""A body's union that holds itself, and has no tag: refused before the start, where each level of it would double.

pydantic tries each kind of such a union, and each looks into all that it holds before it is known to be the wrong one.
Where two kinds come to the union again for the same value, each level doubles that: measured, 16 take a third of a
second, and 30, which are 1.5 kB, an hour and a half, in which nobody else has a turn.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from quart_schema.validation import QUART_SCHEMA_REQUEST_ATTRIBUTE

NOT_SCHEMAS = frozenset({"default", "expected", "metadata", "serialization"})  # of what a schema of pydantic's has
_WITH_FIELDS = frozenset({"dataclass-args", "model-fields", "typed-dict"})
_WITH_ITEMS = frozenset({"frozenset", "generator", "list", "set", "tuple"})
_ITEM, _ANY_NAME = 0, 1  # places that have no name

type _Schema = Mapping[str, Any]
type _Places = Mapping[str | int, list[_Schema]]


class _Kind(NamedTuple):
    """What a value is taken apart by, and the config of the model around it."""

    schema: _Schema
    config: Mapping[str, Any]


def doubling(routes: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield a line for each of some routes, each a name and its view, whose body has such a union."""
    for name, view in routes:
        model, *_ = getattr(view, QUART_SCHEMA_REQUEST_ATTRIBUTE, (None,))
        if model is not None and (kinds := _Body(TypeAdapter(model).core_schema).doubled()):
            yield (
                f"{name}: takes {' | '.join(kinds)}, which hold each other again and are both tried at each level, so"
                " that 2 kB may be hours of work: tell them apart by Field(discriminator=…), a field or a function"
            )


class _Body:
    """The schema of pydantic's that a body is read by."""

    def __init__(self, schema: Any) -> None:
        self._schemas: dict[int, _Schema] = {}
        self._definitions: dict[str, _Schema] = {}
        left: list[_Schema] = [schema]
        while left:
            one = left.pop()
            if id(one) not in self._schemas:
                self._schemas[id(one)] = one
                if isinstance(one.get("ref"), str):
                    self._definitions[one["ref"]] = one
                left += _parts(one)
        self._holders: dict[int, list[int]] = defaultdict(list)
        for one in self._schemas.values():
            for inner in self._within(one):
                self._holders[id(inner)].append(id(one))
        self._known_kinds: dict[int, dict[int, _Kind]] = {}
        self._known_places: dict[int, _Places] = {}

    def doubled(self) -> tuple[str, ...]:
        """Return the names of two kinds between which the work doubles; none where there are no such two."""
        for union in self._schemas.values():
            if union["type"] != "union":
                continue
            back = self._holding(union)  # whatever comes to the union again
            choices = [choice for choice in map(_of_choice, union["choices"]) if id(choice) in back]
            for one, other in combinations(choices, 2):
                for mine, theirs in product(self._kinds(one).values(), self._kinds(other).values()):
                    if self._meet_again(mine, theirs, back):
                        return self._name(one), self._name(other)
        return ()

    def _meet_again(self, one: _Kind, other: _Kind, back: set[int]) -> bool:
        """Whether a value that both kinds take apart has within it one that comes to both again, on both ways."""
        both = {id(one.schema), id(other.schema)}
        seen: set[tuple[int, int]] = set()
        left = [*self._in_step(one, other, back)]
        while left:
            mine, theirs = left.pop()
            if (pair := (id(mine), id(theirs))) in seen:
                continue
            seen.add(pair)
            ones, others = self._kinds(mine), self._kinds(theirs)
            if both <= ones.keys() & others.keys():
                return True
            for pair_of_kinds in product(ones.values(), others.values()):
                left += self._in_step(*pair_of_kinds, back)
        return False

    def _in_step(self, one: _Kind, other: _Kind, back: set[int]) -> Iterator[tuple[_Schema, _Schema]]:
        """Yield what looks at one value within another, by the one kind and by the other, if it comes to the union."""
        ones, others = self._places(one), self._places(other)
        for mine, theirs in product(ones, others):
            if mine == theirs or (_ANY_NAME in (mine, theirs) and _ITEM not in (mine, theirs)):
                for pair in product(ones[mine], others[theirs]):
                    if id(pair[0]) in back and id(pair[1]) in back:
                        yield pair

    def _holding(self, schema: _Schema) -> set[int]:
        """Return the ids of a schema and of all that come to it."""
        found: set[int] = set()
        left = [id(schema)]
        while left:
            if (one := left.pop()) not in found:
                found.add(one)
                left += self._holders[one]
        return found

    def _within(self, schema: _Schema) -> Iterator[_Schema]:
        if schema["type"] == "definition-ref":
            yield self._definitions[schema["schema_ref"]]
        yield from _parts(schema)

    def _kinds(self, schema: _Schema) -> dict[int, _Kind]:
        """Return what a value may be taken apart by, by its id: of a union each kind, and without what is around it."""
        if (known := self._known_kinds.get(id(schema))) is not None:
            return known
        found: dict[int, _Kind] = {}
        seen: set[int] = set()
        left = [_Kind(schema, {})]
        while left:
            one, around = left.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            config = one.get("config") or around
            if one["type"] in _WITH_FIELDS | _WITH_ITEMS | {"dict"}:
                found[id(one)] = _Kind(one, config)
            else:
                inners = [one["schema"]] if one["type"] == "definitions" else self._within(one)
                left += [_Kind(inner, config) for inner in inners]
        self._known_kinds[id(schema)] = found
        return found

    def _places(self, kind: _Kind) -> _Places:
        """Return what a kind holds, by where that is: a name, any name, or a place in a list."""
        if (known := self._known_places.get(id(kind.schema))) is not None:
            return known
        places: dict[str | int, list[_Schema]] = defaultdict(list)
        schema = kind.schema
        if schema["type"] in _WITH_FIELDS:
            for name, field in _fields(schema, kind.config):
                places[name].append(field["schema"])
        for place, part in ((_ITEM, "items_schema"), (_ANY_NAME, "values_schema"), (_ANY_NAME, "extras_schema")):
            if found := [*_schemas(schema.get(part))]:
                places[place] += found
        self._known_places[id(schema)] = places
        return places

    def _name(self, kind: _Schema) -> str:
        while kind["type"] == "definition-ref":
            kind = self._definitions[kind["schema_ref"]]
        return str(kind["cls"].__name__ if "cls" in kind else kind["type"])


def _of_choice(choice: Any) -> _Schema:
    schema: _Schema = choice[0] if isinstance(choice, tuple) else choice  # with the label that it is told by
    return schema


def _fields(schema: _Schema, config: _Schema) -> Iterator[tuple[str, _Schema]]:
    """Yield the fields of a schema, each with each name that it is given by; of a path of names the first counts."""
    fields = schema["fields"]
    for name, field in fields.items() if isinstance(fields, Mapping) else ((field["name"], field) for field in fields):
        alias = field.get("validation_alias")
        if alias is None or config.get("validate_by_name"):
            yield str(name), field
        if alias is not None and config.get("validate_by_alias", True):
            several = isinstance(alias, list) and isinstance(alias[0], list)
            for one in alias if several else [alias]:
                yield str(one[0] if isinstance(one, list) else one), field


def _parts(schema: _Schema) -> Iterator[_Schema]:
    """Yield the schemas that one is directly made of."""
    for name, part in schema.items():
        if name not in NOT_SCHEMAS:
            yield from _schemas(part)


def _schemas(part: Any) -> Iterator[_Schema]:
    if isinstance(part, Mapping):
        if isinstance(part.get("type"), str):
            yield part
        else:  # fields, which may be called anything
            yield from (one for inner in part.values() for one in _schemas(inner))
    elif isinstance(part, list | tuple):
        yield from (one for inner in part for one in _schemas(inner))
