"""Settings for tests: made from values alone, whatever the environment and `.env` say."""

from typing import Any

from service.platform.settings import Catalogue, FeatureSettings, PlatformSettings


def settings_of(catalogue: Catalogue, **values: Any) -> PlatformSettings:
    """Return settings with these values, named like their variables: `bind=…`, `orders_limit=…`.

    Raises ValidationError for a wrong value, and LookupError for a name that is no setting.
    """
    groups: dict[type, dict[str, Any]] = {}
    for name, value in values.items():
        setting = catalogue.find(f"SERVICE_{name.upper()}")
        groups.setdefault(setting.group, {})[setting.field] = value
    of_features: dict[str, FeatureSettings] = {
        name: kind(**groups.get(kind, {})) for name, kind in catalogue.of_features.items()
    }
    return catalogue.settings(**groups.get(catalogue.settings, {})).with_features(of_features)
