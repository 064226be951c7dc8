"""What is referred to, each under a name of its own: two features may call different types, or errors, the same."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from service.platform.errors import ServiceError
from service.platform.http.openapi.schemas import REFERENCE

_REFERENCES = re.compile(f'"{re.escape(REFERENCE.format(model=""))}([^"]+)"')


def error_names(kinds: Iterable[type[ServiceError]]) -> dict[type[ServiceError], str]:
    """Return the name of each kind of error; the platform's keep theirs, of others the first."""
    names: dict[str, type[ServiceError]] = {}
    for kind in sorted(kinds, key=lambda kind: not kind.__module__.startswith("service.platform.")):
        number, name = 1, kind.__name__
        while names.setdefault(name, kind) is not kind:
            number += 1
            name = f"{kind.__name__}{number}"
    return {kind: name for name, kind in names.items()}


class Components:
    """Names that were given out: the first of a name keeps it, another one is called Item2, Item3 and so on."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}  # what stands under a name

    def place(self, schema: dict[str, Any], definitions: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a schema and those that it refers to, with the names that they have in the document."""
        texts = {name: json.dumps(one, sort_keys=True) for name, one in definitions.items()}
        names = {name: self._name(name, texts) for name in texts}

        def rename(one: Mapping[str, Any]) -> Any:
            text = json.dumps(one)
            return json.loads(_REFERENCES.sub(lambda found: f'"{REFERENCE.format(model=names[found[1]])}"', text))

        placed = {names[name]: rename(one) for name, one in definitions.items()}
        for given in placed.keys() - texts.keys():
            placed[given] |= {"title": given}  # makers of clients go by that too
        return rename(schema), placed

    def refer(self, schema: dict[str, Any], definitions: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Do the same with a reference in the place of an object: makers of clients want a name for it."""
        name = re.sub(r"[^\w.-]", "_", schema.get("title", ""), flags=re.ASCII)
        if name and "properties" in schema and name not in definitions:
            definitions = {**definitions, name: schema}
            schema = {"$ref": REFERENCE.format(model=name)}
        return self.place(schema, definitions)

    def _name(self, name: str, texts: Mapping[str, str]) -> str:
        """Return the name for what is called `name` here. It is the same as another if all that it refers to is."""
        within, left = {name}, [name]
        while left:
            found = set(_REFERENCES.findall(texts[left.pop()])) - within
            within |= found
            left += found
        whole = "".join(texts[one] for one in sorted(within))
        number, given = 1, name
        while self._known.setdefault(given, whole) != whole:
            number += 1
            given = f"{name}{number}"
        return given
