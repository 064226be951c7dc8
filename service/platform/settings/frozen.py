"""What all settings classes share, and the base of a feature's: frozen, and read with the prefix of its owner."""

from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "SERVICE_"


def prefix_of(feature: str) -> str:
    """Return what the variables of a feature's settings begin with: SERVICE_ORDERS_ for `orders`."""
    return f"{PREFIX}{feature.upper()}_"


class Frozen(BaseSettings):
    """An object that is made once, when the command line starts, and passed down."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Take `INFO` for `info` where a field may be one of some words, and leave out the blanks around any text.

        `echo secret | base64` puts a newline into a Secret; files of secrets are read without it as well.
        """
        value = value.strip() if isinstance(value, str) else value
        annotation = cls.model_fields[info.field_name or ""].annotation
        if get_origin(annotation) is Literal and isinstance(value, str):
            return next((word for word in get_args(annotation) if str(word).lower() == value.lower()), value)
        return value


class FeatureSettings(Frozen):
    """The base of a feature's settings: its fields are SERVICE_<FEATURE>_*. `settings.of(YourClass)` returns them."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment only when the loader names the prefix: the class alone does not know its feature."""
        if not getattr(env_settings, "env_prefix", ""):
            return (init_settings,)
        return init_settings, env_settings, dotenv_settings, file_secret_settings
