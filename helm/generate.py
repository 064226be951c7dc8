"""Makes what the chart says twice: values.schema.json, the values table of README.md and templates/_settings.tpl.

Sources: the comments in values.yaml, and the settings classes. Run `make generate` after changing one;
a test compares. Not part of the packaged chart.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent
sys.path.insert(0, str(CHART.parent))  # run as a script, from anywhere

from helm.kinds import LIKE, LIMIT, expand, only_printable  # noqa: E402  # after the path above
from service.features import FEATURES  # noqa: E402  # the same
from service.platform.feature import catalogue  # noqa: E402  # the same
from service.platform.name import NAME  # noqa: E402  # the same
from service.platform.settings import DRAIN_MARGIN, Catalogue, PlatformSettings, Setting  # noqa: E402  # the same
from service.platform.settings.documents import is_required, json_schema, secrets  # noqa: E402  # after the path above
from service.settings import Settings  # noqa: E402  # the same

KNOWN = catalogue(Settings, FEATURES)

# Settings that the chart sets itself, and what to use in their place.
OWNED = {
    "SERVICE_BIND": "service.port",
    "SERVICE_MANAGEMENT_BIND": "the port named management, 9000",
    "SERVICE_READY_FILE": "the readiness probe",
    "SERVICE_DRAIN_DELAY": "drain.delay",
    "SERVICE_DRAIN_SPREAD": "drain.spread",
    "SERVICE_GRACEFUL_TIMEOUT": "drain.gracefulTimeout",
    "SERVICE_DATABASE_URL": "database.existingSecret and database.urlKey",
    "SERVICE_DATABASE_DIRECT_URL": "database.existingSecret and database.directUrlKey",
    "SERVICE_MIGRATION_GRANT_TO": "migration.grantTo",
    "SERVICE_DATABASE_PASSWORD_FILE": "database.existingSecret and database.passwordKey",
}
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
BEGIN, END = "<!-- values: made by generate.py -->\n", "<!-- end of values -->\n"


@dataclass(frozen=True)
class Value:
    """A key of values.yaml, with what its comment says; `children` when the schema looks inside."""

    path: str
    default: Any
    description: str
    extra: dict[str, Any]
    children: list["Value"] = field(default_factory=list)


def parse_values(text: str) -> list[Value]:
    """Read values.yaml into a tree. A mapping is looked into unless it is empty or its comment gives it a type."""
    lines = text.splitlines()
    # The safe loader, ten times as fast.
    return _parse(yaml.compose(text, yaml.CSafeLoader), yaml.load(text, yaml.CSafeLoader), lines, "")


def _parse(node: Any, data: dict[str, Any], lines: list[str], prefix: str) -> list[Value]:
    values = []
    for key_node, value_node in node.value:
        key = key_node.value
        description, extra = _comment_above(lines, key_node.start_mark.line)
        descend = isinstance(data[key], dict) and data[key] and "type" not in extra
        children = _parse(value_node, data[key], lines, f"{prefix}{key}.") if descend else []
        values.append(Value(prefix + key, data[key], description, extra, children))
    return values


def _comment_above(lines: list[str], number: int) -> tuple[str, dict[str, Any]]:
    comments: list[str] = []
    while number and lines[number - 1].lstrip().startswith("#"):
        number -= 1
        comments.insert(0, lines[number].strip().removeprefix("#").strip())
    extra: dict[str, Any] = {}
    for line in comments:
        if line.startswith("@schema "):
            extra |= expand(json.loads(line.removeprefix("@schema ")))
    return " ".join(line for line in comments if not line.startswith("@schema ")), extra


def make_schema(values: list[Value], known: Catalogue) -> dict[str, Any]:
    root: dict[str, Any] = only_printable(_object(values, known))
    # A parent chart passes both to its subcharts, with keys for others.
    root["properties"]["global"]["additionalProperties"] = True
    root["properties"] |= {"enabled": {"type": "boolean"}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Values of the chart"} | root


def _object(values: list[Value], known: Catalogue) -> dict[str, Any]:
    properties = {value.path.rpartition(".")[2]: _schema(value, known) for value in values}
    # Helm takes a value that is null for one that is not there, the default with it.
    needed = [name for name, schema in properties.items() if not _admits_null(schema)]
    return {"type": "object", "additionalProperties": False, "required": needed, "properties": properties}


def _admits_null(schema: dict[str, Any]) -> bool:
    if "anyOf" in schema:
        return any(_admits_null(one) for one in schema["anyOf"])
    return "null" in schema["type"] if isinstance(schema["type"], list) else schema["type"] in (None, "null")


def _schema(value: Value, known: Catalogue) -> dict[str, Any]:
    if value.children:
        return _object(value.children, known)
    extra = dict(value.extra)
    if setting := extra.pop("settings", None):
        described = json.loads(json_schema(known))["properties"]
        if setting == "config":
            free = {name: schema for name, schema in described.items() if name not in OWNED}
            extra |= {"additionalProperties": False, "properties": free}
        elif setting == "secrets":
            key = {"type": "string", "minLength": 1, **LIKE["key"]}
            named = {one.variable: {**key, "description": one.info.description} for one in own_secrets(known)}
            extra |= {"additionalProperties": False, "properties": named}
        else:
            extra |= {key: limit for key, limit in described[setting].items() if key != "description"}
    schema = {"description": value.description, "type": TYPES.get(type(value.default))} | extra
    if "anyOf" in schema:
        del schema["type"]
    elif schema["type"] in ("integer", ["integer", "null"]):
        schema = {**schema, "maximum": schema.get("maximum", LIMIT)}
    return schema


def make_table(values: list[Value]) -> str:
    rows = [
        f"| `{one.path}` | `{_cell(json.dumps(one.default))}` | {_cell(one.description)} |" for one in _leaves(values)
    ]
    return "\n".join(["| value | default | what it does |", "|---|---|---|", *rows]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _leaves(values: list[Value]) -> Iterator[Value]:
    for value in values:
        if value.children:
            yield from _leaves(value.children)
        else:
            yield value


def own_secrets(known: Catalogue) -> list[Setting]:
    """Return the settings that are secrets, and for which the chart has no value of its own."""
    return [one for one in secrets(known) if one.variable not in OWNED]


def make_settings_template(known: Catalogue) -> str:
    hidden = [one.variable for one in own_secrets(known)]
    facts = {
        "drain_margin": DRAIN_MARGIN,
        "request_deadline": PlatformSettings.model_fields["request_deadline"].default,
        "owned": OWNED,
        "required": {one.variable: one.info.description for one in known if is_required(one)},
        "config": [name for name in known.variables if name not in OWNED and name not in hidden],
        "secrets": hidden,
    }
    note = "{{/* What the templates know of service/platform/settings/base.py. Made by `make generate`. */}}"
    return f'{note}\n{{{{- define "{NAME}.settings" -}}}}\n{json.dumps(facts, indent=2)}\n{{{{- end -}}}}\n'


def outputs(chart: Path = CHART, known: Catalogue = KNOWN) -> dict[Path, str]:
    """Return what each generated file of a chart should hold, for a service with these settings."""
    values = parse_values((chart / "values.yaml").read_text())
    readme = (chart / "README.md").read_text()
    table = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    return {
        chart / "values.schema.json": json.dumps(make_schema(values, known), indent=2) + "\n",
        chart / "README.md": table.sub(lambda _: BEGIN + make_table(values) + END, readme),
        chart / "templates" / "_settings.tpl": make_settings_template(known),
    }


if __name__ == "__main__":
    for path, text in outputs().items():
        path.write_text(text)
