"""Whatever the schema admits is either refused by the chart in a sentence of its own, or taken by the API."""

import json
from typing import Any

import helm_python
from hypothesis import HealthCheck, event, given, settings, target

from service.platform.name import NAME
from tests.helm import draws
from tests.helm.charts import CHART, VERSIONS, Release, render
from tests.helm.test_names import texts_that_are_not
from tests.helm.test_shapes import FOREIGN, validate

DATABASE = {"existingSecret": "db"}
REFUSED = f"execution error at ({NAME}/templates/checks.yaml:"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(draws.values())
def test_random_values_are_refused_in_words_or_taken_by_the_api(values: dict[str, Any]) -> None:
    values["database"] = DATABASE | values.get("database", {})
    if values["database"].get("trial", {}).get("enabled"):
        del values["database"]["existingSecret"]
    release, error = rendered(values)
    if release is None:
        event("refused")
        assert REFUSED in error
        return

    event("rendered")
    target(len(release.objects))
    assert list(texts_that_are_not(release.objects)) == []
    for one in release.objects:
        if one["kind"] not in FOREIGN and one["metadata"]["name"] != "more":
            validate(json.dumps(one), VERSIONS[1])


def rendered(values: dict[str, Any]) -> tuple[Release | None, str]:
    try:
        return render(CHART, values), ""
    except helm_python.HelmError as error:
        return None, str(error)


def test_examples_stand_for_values_that_exist() -> None:
    seen = set()

    def walk(schema: dict[str, Any], path: str) -> None:
        seen.add(path)
        for key, one in schema.get("properties", {}).items():
            walk(one, f"{path}.{key}".lstrip("."))
        if "items" in schema:
            walk(schema["items"], path + "[]")

    walk(draws.schema_of_values(), "")

    assert draws.PASSED_ON.keys() <= seen
