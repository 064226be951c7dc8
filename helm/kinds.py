"""Kinds of values that Kubernetes takes in one form only: for `@schema {"like": "labels"}` in values.yaml."""

from typing import Any

LIMIT = 2**31 - 1  # what Kubernetes has room for in a number
PREFIX = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?"
WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
KEY = {"pattern": f"^{PREFIX}{WORD}$"}
TEXT = {"type": "string"}
# What YAML has no room for; Helm's reader drops a whole document with one of these in it.
PRINTABLE = "^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\ufeff\ufffe\uffff]*$"
MAP = {"type": "object", "propertyNames": KEY}
DNS = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
LABEL = {**TEXT, "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
LIKE: dict[str, dict[str, Any]] = {
    "labels": {**MAP, "additionalProperties": {**TEXT, "pattern": f"^({WORD})?$"}},
    "annotations": {**MAP, "additionalProperties": TEXT},
    "name": {"pattern": f"^({DNS})?$"},
    "key": {"pattern": r"^[-._a-zA-Z0-9]*$", "maxLength": 253},
    "host": {**TEXT, "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"},
    "quantity": {"pattern": r"^[0-9]{1,9}(\.[0-9]{1,3})?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"},
    "pods": {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": LIMIT},
            {**TEXT, "pattern": "^([1-9][0-9]?|100)%$"},
        ]
    },
    "pods or null": {
        "anyOf": [
            {"type": "null"},
            {"type": "integer", "minimum": 1, "maximum": LIMIT},
            {**TEXT, "pattern": "^([1-9][0-9]?|100)%$"},
        ]
    },
    "label key": {"pattern": f"^({PREFIX}{WORD})?$"},
    "env": {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"name": {**TEXT, "pattern": "^[ -<>-~]+$"}, "value": TEXT, "valueFrom": {"type": "object"}},
    },
    "named": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": LABEL},
    },
    "mount": {
        "type": "object",
        "required": ["name", "mountPath"],
        "properties": {"name": LABEL, "mountPath": {**TEXT, "minLength": 1}},
    },
}


def expand(schema: dict[str, Any]) -> dict[str, Any]:
    """Put in the place of each `like` what it stands for."""
    expanded: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "like":
            expanded |= LIKE[value]
        else:
            expanded[key] = expand(value) if isinstance(value, dict) else value
    return expanded


def only_printable(schema: Any) -> Any:
    """Bound each text that no other pattern bounds."""
    if not isinstance(schema, dict):
        return schema
    bounded = {key: only_printable(value) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"pattern", "enum"} & schema.keys():
        bounded["pattern"] = PRINTABLE
    return bounded
