"""The texts that are made from the settings classes: what is in force, README table, `.env.example`, chart schema."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticUndefined

from service.platform.settings.base import PlatformSettings
from service.platform.settings.kinds import is_list, json_form
from service.platform.settings.load import Catalogue, Setting, effective
from service.platform.settings.words import describe_range, is_secret, shown


def table(settings: PlatformSettings, origins: Mapping[str, str]) -> str:
    """Return a line a setting: variable, value with passwords replaced, where it came from."""
    rows = list(effective(settings, origins))
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:<{name_width}}  {value:<{value_width}}  {origin}" for name, value, origin in rows)


def markdown(catalogue: Catalogue) -> str:
    """Return the table of settings in the README."""
    lines = ["| variable | default | may be | what it decides |", "|---|---|---|---|"]
    for one in catalogue:
        default = _default(one)
        cell = "must be set" if default is None else f"`{default}`" if default else "unset"
        lines.append(f"| `{one.variable}` | {cell} | {describe_range(one.info)} | {one.info.description} |")
    return "\n".join(lines)


def env(catalogue: Catalogue) -> str:
    """Return `.env.example`: every setting, commented out, with its default."""
    lines = ["# Copy to .env and uncomment what you change; the environment wins over this file.", ""]
    for one in catalogue:
        note = f"# {one.info.description} ({describe_range(one.info)})"
        default = "" if is_secret(one.info) else _default(one)  # stars, uncommented, would become the secret
        lines += [note, f"# {one.variable}={default or ''}", ""]
    return "\n".join(lines).rstrip()


def json_schema(catalogue: Catalogue) -> str:
    """Return a JSON schema of the settings as environment variables, for the chart's `config` map.

    Secrets are left out: they belong into a Secret, not into values. Numbers and booleans may be given as such.
    """
    generated = {group: group.model_json_schema()["properties"] for group in {one.group for one in catalogue}}
    properties = {
        one.variable: _property(one, generated[one.group][one.field]) for one in catalogue if not is_secret(one.info)
    }
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return json.dumps(schema, indent=2)


def secrets(catalogue: Catalogue) -> list[Setting]:
    """Return the settings that belong into a Secret."""
    return [one for one in catalogue if is_secret(one.info)]


def _default(one: Setting) -> str | None:
    """Return the default as the environment would give it; None where there is none."""
    default = one.info.get_default(call_default_factory=True, validated_data={})
    return None if default is PydanticUndefined else shown(default)


def is_required(one: Setting) -> bool:
    """Return whether the service does not start without a value for it."""
    return _default(one) is None


# What of a field's JSON schema holds for the text of a variable too.
_KEPT = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "enum")


def _property(one: Setting, generated: dict[str, Any]) -> dict[str, Any]:
    kinds = [each for each in generated.get("anyOf", [generated]) if each.get("type") != "null"]
    form = json_form(one.info.annotation)
    kept: dict[str, Any] = {key: kinds[0][key] for key in _KEPT if key in kinds[0]}
    if len(kinds) > 1 or form or is_list(one.info.annotation):
        kept = {"type": ["string", form] if form else "string"}  # the chart makes a text of it
    return {**kept, "description": f"{one.info.description} ({describe_range(one.info)})"}
