"""Each shape in helm/ci, and the values for production, held against the rules, strict lint and the API's schemas."""

import functools
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import helm_python
import jsonschema_rs
import kubernetes_validate  # type: ignore[import-untyped]  # it has no stubs
import pytest
import yaml

from tests.helm.charts import CHART, SHAPES, VERSIONS, Shape, load_shape, with_required
from tests.helm.rules import RULES

FOREIGN = {"HTTPRoute", "ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject"}


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_a_shape_keeps_every_rule(path: Path) -> None:
    shape = load_shape(path)

    assert [f"{name}: {problem}" for name, rule in RULES.items() for problem in rule(shape)] == []


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_default_level_of_a_clone_s_own_keeps_every_rule(level: str) -> None:
    shape = Shape(CHART, {"database": {"existingSecret": "db"}, "config": {"SERVICE_LOG_LEVEL": level}})

    assert [f"{name}: {problem}" for name, rule in RULES.items() for problem in rule(shape)] == []


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_a_shape_lints_strictly(path: Path) -> None:
    report = helm_python.lint(CHART, with_required(yaml.safe_load(path.read_text())), strict=True)

    worse_than_advice = [message for message in report["messages"] if message["severity"] > 1]
    assert (worse_than_advice, report["errors"]) == ([], [])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_a_shape_is_what_the_api_takes(path: Path, version: str) -> None:
    for one in load_shape(path).release.objects:
        if one["kind"] not in FOREIGN:
            validate(json.dumps(one), version)


@functools.cache  # many shapes share objects
def validate(document: str, version: str) -> None:
    """Hold an object against the API's schema, which admits no field that it does not know."""
    one = json.loads(document)
    # rbac.authorization.k8s.io/v1 is rbac-v1 in the name of a file.
    api_version = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", one["apiVersion"])
    validator(f"{one['kind'].lower()}-{api_version}.json", version).validate(one)


@functools.cache  # kubernetes_validate, whose schemas these are, reads two megabytes for each object
def validator(name: str, version: str) -> jsonschema_rs.Draft202012Validator:
    shared = read_schema("_definitions.json", version)
    known = jsonschema_rs.Registry([(shared["$id"], shared)])
    return jsonschema_rs.Draft202012Validator(read_schema(name, version), registry=known, offline=True)


def read_schema(name: str, version: str) -> Any:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    return json.loads((folder / name).read_text())


def test_the_oldest_version_is_the_one_that_the_chart_admits() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    assert kubernetes_validate.latest_version().startswith(VERSIONS[1])


def test_a_wrong_field_is_seen_by_the_validation() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"sessionAffinty": "None"}}

    with pytest.raises(jsonschema_rs.ValidationError, match="sessionAffinty"):
        validate(json.dumps(service), VERSIONS[1])


def test_the_chart_packages_without_what_only_developers_need(tmp_path: Path) -> None:
    with helm_python.Chart.load(helm_python.package(CHART, destination=tmp_path)) as packed:
        names = {file["name"] for file in packed.files}

    assert "values-production.yaml" in names
    assert not {name for name in names if name.startswith("ci/") or name.endswith(".py")}


def test_production_values_fit_on_a_screen() -> None:
    assert len((CHART / "values-production.yaml").read_text().splitlines()) <= 50
