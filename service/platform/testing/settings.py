"""Settings for tests: made from values alone, whatever the environment and `.env` say."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError, create_model

from service.platform.settings import Catalogue, FeatureSettings, PlatformSettings, Setting
from service.platform.settings.documents import is_required

# What most kinds of settings take one of, as the environment would give it.
ANY = (
    *("example", "a-longer-example-of-a-text-for-tests", "1", "true", "[]", "{}"),
    *("https://example.org", "postgresql://user:password@localhost/name", "127.0.0.1:1"),
)


def settings_of(catalogue: Catalogue, **values: Any) -> PlatformSettings:
    """Return settings with these values, named like their variables: `bind=…`, `orders_limit=…`.

    What must be set and is not given stands in for itself; see `stand_ins`. Raises ValidationError for a wrong value,
    and LookupError for a name that is no setting.
    """
    groups: dict[type, dict[str, Any]] = {}
    given = {f"SERVICE_{name.upper()}": value for name, value in values.items()}
    for name, value in (stand_ins(catalogue) | given).items():
        setting = catalogue.find(name)
        groups.setdefault(setting.group, {})[setting.field] = value
    of_features: dict[str, FeatureSettings] = {
        name: kind(**groups.get(kind, {})) for name, kind in catalogue.of_features.items()
    }
    return catalogue.settings(**groups.get(catalogue.settings, {})).with_features(of_features)


def stand_ins(catalogue: Catalogue) -> dict[str, str]:
    """Return a value for each setting that must be set, by its variable: its first example, or what its type takes.

    Raises LookupError for one that takes nothing which is known here, and has no example.
    """
    return {one.variable: _stand_in(one) for one in catalogue if is_required(one)}


def _stand_in(setting: Setting) -> str:
    kind: Any = Annotated[setting.info.annotation, setting.info]
    alone: dict[str, Any] = {setting.field: (setting.info.annotation, setting.info)}
    group: type[FeatureSettings] = create_model("Alone", __base__=FeatureSettings, **alone)
    for value in _candidates(setting, TypeAdapter(kind)):
        try:
            group.model_validate({setting.field: value})
        except ValidationError:
            continue
        return value
    raise LookupError(f"{setting.variable} must be set: give it an example that tests can use, Field(examples=[…])")


def _candidates(setting: Setting, adapter: TypeAdapter[Any]) -> Iterator[str]:
    yield from map(str, setting.info.examples or ())
    schema = adapter.json_schema()
    yield from map(str, schema.get("enum", ()))
    for bound, step in (("minimum", 0), ("exclusiveMinimum", 1), ("maximum", 0), ("exclusiveMaximum", -1)):
        if bound in schema:
            yield str(schema[bound] + step)
    yield from ANY
