"""A body's union that holds itself, and has no tag: refused before the start, where each level of it would double.

pydantic tries each kind of such a union, and each looks into all that it holds before it is known to be the wrong one.
Where two kinds hold the union again in the same place, each level doubles that: measured, 16 take a third of a second,
and 30, which are 1.5 kB, an hour and a half, in which nobody else has a turn.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import combinations
from typing import Any

from pydantic import TypeAdapter
from quart_schema.validation import QUART_SCHEMA_REQUEST_ATTRIBUTE

NOT_SCHEMAS = frozenset({"default", "expected", "metadata", "serialization"})  # of what a schema of pydantic's has
_WITH_FIELDS = frozenset({"dataclass-args", "model-fields", "typed-dict"})
_WITH_ITEMS = frozenset({"frozenset", "generator", "list", "set", "tuple"})
_ITEM, _ANY_NAME = 0, 1  # places that have no name

type _Schema = Mapping[str, Any]
type _Places = dict[str | int, list[_Schema]]


def doubling(routes: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield a line for each of some routes, each a name and its view, whose body has such a union."""
    for name, view in routes:
        model, *_ = getattr(view, QUART_SCHEMA_REQUEST_ATTRIBUTE, (None,))
        if model is not None and (kinds := _Body(TypeAdapter(model).core_schema).doubled()):
            yield (
                f"{name}: takes {' | '.join(kinds)}, which hold each other again and are both tried at each level, so"
                " that 2 kB may be hours of work: tell them apart by Field(discriminator=…)"
            )


class _Body:
    """The schema of pydantic's that a body is read by."""

    def __init__(self, schema: Any) -> None:
        self._schema: _Schema = schema

    def doubled(self) -> tuple[str, ...]:
        """Return the names of two kinds between which the work doubles; none where there are no such two."""
        for union in self._reached(self._schema):
            if union.get("type") == "union":
                back = [kind for kind in map(_of_choice, union["choices"]) if self._leads_to(union, kind)]
                places = [self._places(kind) for kind in back]
                for one, other in combinations(range(len(back)), 2):
                    if self._meet_again(union, places[one], places[other]):
                        return self._name(back[one]), self._name(back[other])
        return ()

    def _meet_again(self, union: _Schema, ones: _Places, others: _Places) -> bool:
        """Whether there is a place that both kinds have, and from which both come to the union again."""
        return any(
            any(self._leads_to(union, schema) for schema in ones[mine])
            and any(self._leads_to(union, schema) for schema in others[theirs])
            for mine in ones
            for theirs in others
            if mine == theirs or (_ANY_NAME in (mine, theirs) and _ITEM not in (mine, theirs))
        )

    def _leads_to(self, union: _Schema, schema: _Schema) -> bool:
        return any(one is union for one in self._reached(schema))

    def _reached(self, schema: _Schema) -> Iterator[_Schema]:
        """Yield a schema and all that it comes to, each once."""
        seen, left = set(), [schema]
        while left:
            one = left.pop()
            if id(one) not in seen:
                seen.add(id(one))
                yield one
                left += self._within(one)

    def _within(self, schema: _Schema) -> Iterator[_Schema]:
        if schema.get("type") == "definition-ref":
            yield self._definitions[schema["schema_ref"]]
        yield from _parts(schema)

    @cached_property
    def _definitions(self) -> dict[str, _Schema]:
        found, left = {}, [self._schema]
        while left:
            one = left.pop()
            left += _parts(one)
            if isinstance(one.get("ref"), str):
                found[one["ref"]] = one
        return found

    def _places(self, kind: _Schema) -> _Places:
        """Return what a kind holds, by where that is: a name, any name, or a place in a list."""
        places: _Places = {}
        seen, left = set(), [kind]
        while left:
            one = left.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            if one["type"] in _WITH_FIELDS:
                for name, field in _fields(one):
                    places.setdefault(name, []).append(field["schema"])
            elif one["type"] in _WITH_ITEMS:
                places.setdefault(_ITEM, []).extend(_parts({"items": one.get("items_schema", ())}))
            elif one["type"] == "dict":
                places.setdefault(_ANY_NAME, []).extend(_parts({"values": one.get("values_schema", ())}))
            else:  # what is around a kind, or another union
                left += self._within(one)
        return places

    def _name(self, kind: _Schema) -> str:
        named = (one["cls"].__name__ for one in self._reached(kind) if "cls" in one)
        return next(named, kind["type"]) if kind["type"] not in _WITH_ITEMS | {"dict"} else str(kind["type"])


def _of_choice(choice: Any) -> _Schema:
    schema: _Schema = choice[0] if isinstance(choice, tuple) else choice  # with the label that it is told by
    return schema


def _fields(schema: _Schema) -> Iterator[tuple[str, _Schema]]:
    """Yield the fields of a schema, each with each name that it is given by; of a path of names the first counts."""
    fields = schema["fields"]
    for name, field in fields.items() if isinstance(fields, Mapping) else ((field["name"], field) for field in fields):
        alias = field.get("validation_alias", name)
        for one in [alias] if isinstance(alias, str) else alias:
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
