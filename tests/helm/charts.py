"""Rendering the chart: a release is the objects that `helm install` would send, with the values it was made from."""

import functools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from service.features import FEATURES
from service.platform.feature import catalogue
from service.platform.settings import Catalogue
from service.platform.settings.documents import is_required
from service.settings import Settings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent  # where the linters are that come as packages
CHART = ROOT / "helm"
PRODUCTION = CHART / "values-production.yaml"
# What the settings of this clone that must be set are given, whatever a test's own values are.
REQUIRED = yaml.safe_load((CHART / "ci" / "required.yaml").read_text())
SHAPES = [*sorted((CHART / "ci").glob("*-values.yaml")), PRODUCTION]

# The oldest that Chart.yaml admits and the newest whose API is known here.
VERSIONS = ("1.31", "1.37")

LOADER = yaml.CSafeLoader  # the safe loader, ten times as fast

# Kinds that a cluster has without more being installed, and which of them hold pods.
PODS = {"Deployment", "StatefulSet", "Job", "Pod"}

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """The pod that an object makes."""

    owner: Object
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object

    @property
    def name(self) -> str:
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def ours(self) -> bool:
        """Whether it runs the service's image, as all but the trial database do."""
        return self.labels["app.kubernetes.io/component"] != "trial-database"

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@dataclass(frozen=True)
class Release:
    objects: list[Object]
    values: dict[str, Any]
    notes: str

    def of(self, *kinds: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] in kinds]

    @property
    def pods(self) -> list[Pod]:
        return [_pod(one) for one in self.of(*PODS)]

    @property
    def server(self) -> Pod:
        return next(pod for pod in self.pods if pod.owner["kind"] == "Deployment")


def _pod(owner: Object) -> Pod:
    template = owner if owner["kind"] == "Pod" else owner["spec"]["template"]
    metadata = template["metadata"]
    return Pod(owner, metadata["labels"], metadata.get("annotations") or {}, template["spec"])


@dataclass(frozen=True)
class Shape:
    """A chart with values. Rules look at its release, and at those that a change of the values would give."""

    chart: Path
    values: dict[str, Any]

    @functools.cached_property
    def release(self) -> Release:
        return self.with_values({})

    def with_values(self, change: dict[str, Any], *, revision: int = 1) -> Release:
        """Render with values changed at the top level and one below."""
        values = dict(self.values)
        for key, value in change.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        return render(self.chart, values, revision=revision)

    @functools.cached_property
    def next_version(self) -> Release:
        """What the next version of chart and service would be, were nothing else changed."""
        return self.with_values({"image": {"tag": "99.1.0", "digest": ""}})


def with_required(values: dict[str, Any], required: dict[str, Any] = REQUIRED) -> dict[str, Any]:
    """Return values to which those of required settings are added; what both give is the values'."""
    if required is REQUIRED and (lacking := missing(catalogue(Settings, FEATURES), required)):
        pytest.fail(
            f"helm/ci/required.yaml: must give a value to {', '.join(lacking)}, as it says itself", pytrace=False
        )
    return _merged(values, required)


def missing(known: Catalogue, required: dict[str, Any]) -> list[str]:
    """Return the variables that must be set and that these values do not give."""
    given = {*required.get("config", {}), *required.get("secrets", {}).get("keys", {})}
    return [one.variable for one in known if is_required(one) and one.variable not in given]


def _merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in more.items():
        given = values.get(key, {})
        merged[key] = _merged(given, value) if isinstance(value, dict) and isinstance(given, dict) else given or value
    return merged


def render(
    chart: Path,
    values: dict[str, Any],
    *,
    revision: int = 1,
    name: str = "demo",
    namespace: str = "prod",
    required: dict[str, Any] = REQUIRED,
) -> Release:
    values = with_required(values, required)
    with helm_python.Chart.load(chart) as loaded:
        rendered = loaded.render(values, name=name, namespace=namespace, revision=revision, is_upgrade=revision > 1)
        merged = loaded.merge_values(values)
    texts = [text for name, text in rendered.items() if not name.endswith("NOTES.txt")]
    objects = [one for text in texts for one in yaml.load_all(text, Loader=LOADER) if one]
    notes = next(text for name, text in rendered.items() if name.endswith("NOTES.txt"))
    return Release(objects, merged, notes)


@functools.cache  # what it renders is kept with it, and many tests look at the same
def load_shape(path: Path, chart: Path = CHART) -> Shape:
    return Shape(chart, yaml.safe_load(path.read_text()))


def shape_named(name: str, chart: Path = CHART) -> Shape:
    return load_shape(CHART / "ci" / f"{name}-values.yaml", chart)


def copy_chart(target: Path, file: str, old: str, new: str) -> Path:
    """Copy the chart and break it in one place; the place must exist, or the mutation would prove nothing."""
    shutil.copytree(CHART, target, ignore=shutil.ignore_patterns("ci", "*.py", "__pycache__"))
    text = (target / file).read_text()
    assert old in text, f"{file} holds no {old!r} any more"
    (target / file).write_text(text.replace(old, new))
    return target


def find(node: Any, key: str) -> Iterator[Any]:
    """Yield every value under `key`, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from find(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from find(value, key)
