"""Settings: the base class of yours and of each feature's, their types, and how they are read, shown and documented."""

from service.platform.settings.addresses import DEFAULT_PORTS, host_name, https_address
from service.platform.settings.base import DRAIN_MARGIN, PlatformSettings
from service.platform.settings.frozen import PREFIX, FeatureSettings
from service.platform.settings.load import TRACES, Catalogue, Setting, SettingsError, effective, traces_wanted, variable
from service.platform.settings.types import (
    Algorithms,
    Bind,
    DatabaseURL,
    HttpsAddress,
    Issuer,
    Names,
    Networks,
    Origins,
    Seconds,
    SecretURL,
)

__all__ = [
    "DEFAULT_PORTS",
    "DRAIN_MARGIN",
    "PREFIX",
    "TRACES",
    "Algorithms",
    "Bind",
    "Catalogue",
    "DatabaseURL",
    "FeatureSettings",
    "HttpsAddress",
    "Issuer",
    "Names",
    "Networks",
    "Origins",
    "PlatformSettings",
    "Seconds",
    "SecretURL",
    "Setting",
    "SettingsError",
    "effective",
    "host_name",
    "https_address",
    "traces_wanted",
    "variable",
]
