"""A secret among the settings of a feature: from its class to the documents, to `/settings`, and to the chart."""

import shutil
from pathlib import Path
from typing import Any

import helm_python
import httpx2
import pytest
import yaml
from pydantic import Field, SecretStr

from helm.generate import outputs
from service.platform.feature import Feature, catalogue
from service.platform.settings import Catalogue, FeatureSettings, PlatformSettings, documents
from service.platform.testing.booting import booted
from service.platform.testing.settings import settings_of
from tests.helm.charts import CHART, SHAPES, missing, render, with_required
from tests.platform.features import open_plain

OUTSIDE = {"database": {"existingSecret": "db"}}


class OrderSettings(FeatureSettings):
    api_key: SecretStr = Field(description="What the shop is asked with.")
    hint: SecretStr | None = Field(None, description="What else it is told.")
    shop: str = Field(description="Which shop is asked.")
    limit: int = Field(10, ge=1, le=100, description="How many orders a page has.")


ORDERS = Feature("orders", open=open_plain, settings=OrderSettings)


@pytest.fixture
def known() -> Catalogue:
    return catalogue(PlatformSettings, [ORDERS])


@pytest.fixture
def chart(tmp_path: Path, known: Catalogue) -> Path:
    """Return a copy of the chart as `make generate` leaves it in a clone that has this feature."""
    copy = Path(shutil.copytree(CHART, tmp_path / "helm", ignore=shutil.ignore_patterns("__pycache__")))
    for path, text in outputs(copy, known).items():
        path.write_text(text)
    return copy


def test_the_charts_tests_say_where_a_value_is_missing(known: Catalogue) -> None:
    given = {"config": {"SERVICE_ORDERS_SHOP": "example"}}

    assert missing(known, {}) == ["SERVICE_ORDERS_API_KEY", "SERVICE_ORDERS_SHOP"]
    assert missing(known, given) == ["SERVICE_ORDERS_API_KEY"]
    assert missing(known, given | {"secrets": {"keys": {"SERVICE_ORDERS_API_KEY": "api-key"}}}) == []


def test_a_test_s_own_secret_stands_beside_what_must_be_given() -> None:
    required = {"secrets": {"existingSecret": "more", "keys": {"SERVICE_ORDERS_API_KEY": "api-key"}}}
    own = {"secrets": {"existingSecret": "own", "keys": {"SERVICE_ORDERS_HINT": "hint"}}}

    assert with_required(own, required) == {
        "secrets": {
            "existingSecret": "own",
            "keys": {"SERVICE_ORDERS_API_KEY": "api-key", "SERVICE_ORDERS_HINT": "hint"},
        }
    }


def test_the_documents_name_it_and_show_no_value(known: Catalogue) -> None:
    table, example = documents.markdown(known), documents.env(known)

    assert "| `SERVICE_ORDERS_API_KEY` | must be set |" in table
    assert "| `SERVICE_ORDERS_HINT` | unset |" in table
    assert "# SERVICE_ORDERS_API_KEY=\n" in example
    assert "Undefined" not in table + example
    assert "None" not in table + example


async def test_settings_on_the_management_listener_are_stars(known: Catalogue, database_url: str) -> None:
    free = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "database_url": database_url}
    settings = settings_of(known, **free, orders_api_key=SecretStr("hunter2"), orders_shop="a")
    async with booted(settings, [ORDERS]) as urls, httpx2.AsyncClient() as client:
        answer = await client.get(urls.management + "/settings")

    assert answer.json()["SERVICE_ORDERS_API_KEY"]["value"] == "***"
    assert answer.json()["SERVICE_ORDERS_HINT"]["value"] == ""
    assert "hunter2" not in answer.text


GIVEN = {
    "secrets": {"existingSecret": "shop", "keys": {"SERVICE_ORDERS_API_KEY": "api-key"}},
    "config": {"SERVICE_ORDERS_SHOP": "a"},
}


def values(**more: Any) -> dict[str, Any]:
    return OUTSIDE | GIVEN | more


def test_the_chart_reads_it_from_the_secret_wherever_settings_are_read(chart: Path) -> None:
    release = render(chart, values(config={"SERVICE_ORDERS_LIMIT": 5, "SERVICE_ORDERS_SHOP": "a"}), required={})
    reading = [
        pod
        for pod in release.pods
        if any(one["name"] == "SERVICE_DATABASE_URL" for one in pod.containers[0].get("env", []))
    ]

    assert len(reading) >= 3  # server, migration, and the test of the database
    for pod in reading:
        [secret] = [one for one in pod.containers[0]["env"] if one["name"] == "SERVICE_ORDERS_API_KEY"]
        assert secret["valueFrom"] == {"secretKeyRef": {"name": "shop", "key": "api-key"}}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secrets": {"existingSecret": "shop", "keys": {"SERVICE_ORDERS_APIKEY": "x"}}}, "SERVICE_ORDERS_APIKEY"),
        ({"secrets": {"existingSecret": "shop", "keys": {"SERVICE_ORDERS_API_KEY": ""}}}, "SERVICE_ORDERS_API_KEY"),
        (
            {"secrets": {"existingSecret": "", "keys": {"SERVICE_ORDERS_API_KEY": "x"}}},
            "secrets.existingSecret is empty",
        ),
        ({"config": {"SERVICE_ORDERS_API_KEY": "x"}}, "SERVICE_ORDERS_API_KEY"),
        (
            {"extraEnv": [{"name": "SERVICE_ORDERS_API_KEY", "value": "x"}]},
            "use secrets.existingSecret and secrets.keys.SERVICE_ORDERS_API_KEY",
        ),
    ],
)
def test_a_wrong_way_is_refused_and_the_right_one_named(chart: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said.replace(".", r"\.")):
        render(chart, values(**wrong), required={})


SECRET_MISSING = (
    "secrets.keys.SERVICE_ORDERS_API_KEY must be set to a key of the Secret secrets.existingSecret: "
    "What the shop is asked with."
)
CONFIG_MISSING = "config.SERVICE_ORDERS_SHOP must be set: Which shop is asked."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (OUTSIDE, [SECRET_MISSING, CONFIG_MISSING]),
        (values(secrets={}), [SECRET_MISSING]),
        (values(config={}), [CONFIG_MISSING]),
    ],
)
def test_a_required_setting_that_is_missing_stops_the_install(
    chart: Path, given: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(helm_python.HelmError) as caught:
        render(chart, given, required={})

    assert [line for line in (SECRET_MISSING, CONFIG_MISSING) if line in str(caught.value)] == said


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"extraEnvFrom": [{"secretRef": {"name": "shop"}}]},
        {"extraEnv": [{"name": "SERVICE_SECRETS_DIR", "value": "/more"}]},
    ],
)
def test_what_may_come_from_a_place_that_the_chart_cannot_see_is_not_refused(
    chart: Path, elsewhere: dict[str, Any]
) -> None:
    assert render(chart, OUTSIDE | elsewhere, required={}).objects


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_one_file_gives_every_shape_what_is_required(chart: Path, path: Path) -> None:
    assert render(chart, yaml.safe_load(path.read_text()), required=GIVEN).objects
