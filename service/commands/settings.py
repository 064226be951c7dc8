"""`service settings`: the effective values with their origin, and the texts that are generated from the class."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from service.settings import Settings, variable
from service.settings_words import describe_range, is_secret, shown


def table(settings: Settings, origins: Mapping[str, str]) -> str:
    """Return a line a setting: variable, value with passwords replaced, where it came from."""
    rows = [(variable(field), shown(getattr(settings, field)), origins[field]) for field in Settings.model_fields]
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:<{name_width}}  {value:<{value_width}}  {origin}" for name, value, origin in rows)


def markdown() -> str:
    """Return the table of settings in the README."""
    lines = ["| variable | default | may be | what it decides |", "|---|---|---|---|"]
    for field, info in Settings.model_fields.items():
        default = f"`{shown(info.default)}`" if shown(info.default) else "unset"
        lines.append(f"| `{variable(field)}` | {default} | {describe_range(info)} | {info.description} |")
    return "\n".join(lines)


def env() -> str:
    """Return `.env.example`: every setting, commented out, with its default."""
    lines = ["# Copy to .env and uncomment what you change; the environment wins over this file.", ""]
    for field, info in Settings.model_fields.items():
        lines += [f"# {info.description} ({describe_range(info)})", f"# {variable(field)}={shown(info.default)}", ""]
    return "\n".join(lines).rstrip()


def json_schema() -> str:
    """Return a JSON schema of the settings as environment variables, for the chart's `config` map.

    Secrets are left out: they belong into a Secret, not into values. Numbers and booleans may be given as such.
    """
    properties = {
        variable(field): _property(field, info) for field, info in Settings.model_fields.items() if not is_secret(info)
    }
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return json.dumps(schema, indent=2)


def _property(field: str, info: FieldInfo) -> dict[str, Any]:
    generated = Settings.model_json_schema()["properties"][field]
    kept = {key: generated[key] for key in ("type", "minimum", "maximum", "enum") if key in generated}
    if generated.get("type") == "array" or "anyOf" in generated:
        kept = {"type": "string"}
    return {**kept, "description": f"{info.description} ({describe_range(info)})"}
