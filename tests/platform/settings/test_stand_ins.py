"""A clone's settings that must be set: tests give them values that they take, and nobody has to say which."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, HttpUrl, SecretStr

from service.platform.settings import Catalogue, FeatureSettings, PlatformSettings, SettingsError
from service.platform.settings.types import DatabaseURL, HttpsAddress, Names, Seconds
from service.platform.testing.settings import settings_of, stand_ins


class Size(StrEnum):
    SMALL = "small"


class Settings(PlatformSettings):
    shop: str = Field(examples=["berlin"])


class OrderSettings(FeatureSettings):
    api_key: SecretStr = Field(min_length=16)
    at_least: int = Field(ge=100)
    below: int = Field(lt=-5)
    database: DatabaseURL
    endpoint: HttpsAddress
    folder: Path
    hosts: list[str]
    limits: dict[str, int]
    mode: Literal["east", "west"]
    names: Names
    numbers: tuple[int, ...] = Field(examples=["1,2"])
    optional: str | None = None
    page: HttpUrl
    patience: Seconds
    size: Size
    switch: bool


class OddSettings(FeatureSettings):
    code: Annotated[str, Field(pattern="^[A-Z]{3}$")]


def test_what_must_be_set_stands_in_for_itself() -> None:
    catalogue = Catalogue(Settings, {"orders": OrderSettings})
    values, told = stand_ins(catalogue), settings_of(catalogue, orders_at_least=120)

    assert len(values) == len(OrderSettings.model_fields)  # all but the optional one, and the shop
    assert values["SERVICE_SHOP"] == "berlin"
    assert (told.of(Settings).shop, told.of(OrderSettings).at_least) == ("berlin", 120)


def test_its_values_are_taken_from_the_environment_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(Settings, {"orders": OrderSettings})
    for name, value in stand_ins(catalogue).items():
        monkeypatch.setenv(name, value)

    assert catalogue.load()[0].of(OrderSettings).below < -5


def test_what_is_not_set_and_must_be_is_named_with_what_it_may_be() -> None:
    with pytest.raises(SettingsError) as wrong:
        Catalogue(Settings, {"orders": OrderSettings}).load()

    assert "SERVICE_SHOP: must be set (such as berlin)" in wrong.value.problems
    assert all(": must be set (" in problem for problem in wrong.value.problems)


def test_what_takes_none_of_them_asks_for_an_example() -> None:
    with pytest.raises(LookupError, match=r"SERVICE_ODD_CODE must be set: give it an example"):
        stand_ins(Catalogue(PlatformSettings, {"odd": OddSettings}))
