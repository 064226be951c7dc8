"""Names, labels and keys that YAML reads as numbers or truth values reach the API as text, and long names differ."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.platform.name import NAME
from tests.helm.charts import CHART, VERSIONS, Object, Release, render
from tests.helm.test_shapes import FOREIGN, validate

ODD = ["12345", "true", "1e3", "null", "0x10", "1-2"]
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035's, which a Service's name has to be

EVERYTHING: dict[str, Any] = {
    "ingress": {"enabled": True, "hosts": ["a.example"]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    "networkPolicy": {"enabled": True},
    "monitoring": {"serviceMonitor": True, "rules": True, "dashboard": True},
    "autoscaling": {"enabled": True},
}


def outside(word: str) -> dict[str, Any]:
    """Return values in which everything that is text is this word."""
    return {
        "commonLabels": {"team": word},
        "commonAnnotations": {"example.org/owner": word},
        "podLabels": {"tier": word},
        "podAnnotations": {"example.org/pod": word},
        "image": {"repository": word, "tag": word},
        "database": {"existingSecret": word, "urlKey": word, "directUrlKey": word, "passwordKey": word},
        "migration": {"existingSecret": word, "urlKey": word},
        "extraEnv": [{"name": "ODD", "value": word}],
        "secretVersion": word,
        "serviceAccount": {"name": word},
        "priorityClassName": word,
        "service": {"annotations": {"example.org/service": word}, "appProtocol": word},
        "ingress": {"enabled": True, "className": word, "hosts": ["a.example"]},
        "nodeSelector": {"pool": word},
    }


def texts_that_are_not(objects: list[Object]) -> Iterator[str]:
    """Yield the names, labels and annotations that are not text."""
    for one in objects:
        metadata = [one["metadata"]]
        metadata += [one["spec"]["template"]["metadata"]] if "template" in one.get("spec", {}) else []
        for place in metadata:
            for value in [place.get("name", ""), place.get("namespace", "")]:
                if not isinstance(value, str):
                    yield f"{one['kind']}: {value!r}"
            for kind in ("labels", "annotations"):
                yield from (f"{k}: {v!r}" for k, v in (place.get(kind) or {}).items() if not isinstance(v, str))


def taken_by_the_api(release: Release) -> None:
    assert list(texts_that_are_not(release.objects)) == []
    for one in release.objects:
        if one["kind"] not in FOREIGN:
            validate(json.dumps(one), VERSIONS[1])
        name = one["metadata"]["name"]
        if one["kind"] in {"Service", "StatefulSet", "Deployment"}:
            assert DNS_LABEL.fullmatch(name), name
        assert len(name) <= 63


@pytest.mark.parametrize("word", ODD)
def test_a_release_may_be_called_what_yaml_reads_as_something_else(word: str) -> None:
    for more in ({}, {"nameOverride": word}):
        for database in ({"trial": {"enabled": True}}, {"existingSecret": "db"}):
            taken_by_the_api(render(CHART, EVERYTHING | more | {"database": database}, name=word, namespace=word))


@pytest.mark.parametrize("word", ODD)
def test_every_value_that_is_text_stays_text(word: str) -> None:
    release = render(CHART, outside(word))

    taken_by_the_api(release)
    server = release.server
    assert server.spec["containers"][0]["image"] == f"{word}:{word}"
    assert server.spec["priorityClassName"] == server.spec["serviceAccountName"] == word
    assert server.labels["app.kubernetes.io/version"] == word
    for pod in release.pods:
        env = {one["name"]: one for one in pod.containers[0].get("env", [])}
        if "SERVICE_DATABASE_URL" in env:
            assert env["SERVICE_DATABASE_URL"]["valueFrom"]["secretKeyRef"] == {"name": word, "key": word}
    assert release.of("Ingress")[0]["spec"]["ingressClassName"] == word


def fullname(name: str, **values: Any) -> str:
    release = render(CHART, {"database": {"existingSecret": "db"}} | values, name=name)
    found: str = release.server.owner["metadata"]["name"]
    return found


def test_names_that_are_cut_do_not_collide() -> None:
    long = "a-release-name-that-is-as-long-as-helm-lets-it"

    assert fullname(f"{long}-one") != fullname(f"{long}-two")
    assert fullname(f"{long}-one") == fullname(f"{long}-one")
    assert len(fullname(f"{long}-one")) <= 45
    assert fullname("demo") == f"demo-{NAME}"


def test_a_name_that_no_service_may_have_is_made_one() -> None:
    made = [fullname(name) for name in ("a.b", "a-b", "1e3", "r-1e3")]

    assert all(DNS_LABEL.fullmatch(name) for name in made)
    assert len(set(made)) == 4


def test_a_label_of_the_user_never_changes_who_is_selected() -> None:
    release = render(
        CHART, {"database": {"existingSecret": "db"}, "commonLabels": {"team": "a"}, "podLabels": {"team": "b"}}
    )

    assert release.server.labels["team"] == "b"
    assert release.server.owner["metadata"]["labels"]["team"] == "a"


def test_an_empty_text_of_one_object_stands_before_the_text_of_all() -> None:
    release = render(
        CHART,
        {
            "database": {"existingSecret": "db"},
            "commonLabels": {"team": "a"},
            "commonAnnotations": {"example.org/a": "b"},
            "podLabels": {"team": ""},
            "service": {"labels": {"team": ""}, "annotations": {"example.org/a": ""}},
            "monitoring": {"serviceMonitor": True, "labels": {"team": ""}},
        },
    )

    public = release.of("Service")[0]["metadata"]
    assert (public["labels"]["team"], public["annotations"]["example.org/a"]) == ("", "")
    assert release.server.labels["team"] == release.of("ServiceMonitor")[0]["metadata"]["labels"]["team"] == ""


def test_recreate_is_a_strategy_without_the_fields_of_the_other() -> None:
    release = render(CHART, {"database": {"existingSecret": "db"}, "strategy": {"type": "Recreate"}})

    assert release.server.owner["spec"]["strategy"] == {"type": "Recreate"}


def test_a_rolling_update_may_be_as_kubernetes_does_it() -> None:
    release = render(CHART, {"database": {"existingSecret": "db"}, "strategy": {"rollingUpdate": None}})

    assert release.server.owner["spec"]["strategy"] == {"type": "RollingUpdate"}


@pytest.mark.parametrize("mode", ["job", "hook", "trial"])
def test_every_pod_has_the_labels_and_annotations_of_all(mode: str) -> None:
    """A cluster's rules look at pods: the migration's was refused where one has to name its team."""
    database = {"trial": {"enabled": True}} if mode == "trial" else {"existingSecret": "db"}
    common = {"commonLabels": {"team": "a"}, "commonAnnotations": {"example.org/a": "b"}, "workers": {"enabled": True}}

    release = render(CHART, common | {"database": database, "migration": {"mode": mode.replace("trial", "job")}})

    assert len({pod.owner["kind"] for pod in release.pods}) == 3 + (mode == "trial")
    assert {pod.name for pod in release.pods if pod.labels.get("team") != "a"} == set()
    assert {pod.name for pod in release.pods if pod.annotations.get("example.org/a") != "b"} == set()


def test_pods_that_have_to_end_have_labels_and_annotations_of_their_own() -> None:
    """A mesh's container beside them goes on, and the Job never ends."""
    apart = {"podLabels": {"sidecar.istio.io/inject": "false"}, "podAnnotations": {"linkerd.io/inject": "disabled"}}

    release = render(CHART, {"database": {"existingSecret": "db"}, "migration": apart, "workers": {"enabled": True}})

    left_alone = {
        pod.owner["kind"]
        for pod in release.pods
        if pod.labels.items() >= apart["podLabels"].items()
        and pod.annotations.items() >= apart["podAnnotations"].items()
    }
    touched = {pod.owner["kind"] for pod in release.pods if {*pod.labels, *pod.annotations} & {*apart["podLabels"]}}
    assert left_alone == touched == {"Job", "Pod"}
