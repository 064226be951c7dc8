"""What all settings classes share, and the base of a feature's: frozen, and read with the prefix of its owner."""

from typing import Any, Literal, get_args, get_origin

from pydantic import AliasChoices, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.platform.settings.kinds import kinds_of, read_text

PREFIX = "SERVICE_"


def prefix_of(feature: str) -> str:
    """Return what the variables of a feature's settings begin with: SERVICE_ORDERS_ for `orders`."""
    return f"{PREFIX}{feature.upper()}_"


class Frozen(BaseSettings):
    """An object that is made once, when the command line starts, and passed down."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        enable_decoding=False,  # pydantic-settings would have lists as JSON, and end what is none with a traceback
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take `INFO` for `info` where a field may be one of some words, and leave out the blanks around any text.

        `echo secret | base64` puts a newline into a Secret; files of secrets are read without it as well. What is made
        of parts is read from text ahead of a field's validators, unless its type has a way of its own (NoDecode, Json).
        """
        fields = {key: field for name, field in cls.model_fields.items() for key in (name, *_aliases(field))}
        return {key: _meant(fields.get(key), value) for key, value in values.items()}


def _aliases(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    several = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [one for one in several if isinstance(one, str)]


def _meant(field: FieldInfo | None, value: Any) -> Any:
    if field is None or not isinstance(value, str):
        return value
    value, [(kind, _), *others] = value.strip(), kinds_of(field.annotation)
    if get_origin(kind) is Literal and not others:
        return next((word for word in get_args(kind) if str(word).lower() == value.lower()), value)
    return read_text(field.annotation, field.metadata, value)


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
