"""Handing the number of pods over to an autoscaler: it stays what it was, and one pod at once is what it never is."""

from typing import Any

import pytest

from tests.helm.applied import ConflictError, Deployment
from tests.helm.charts import CHART, Release, render

OUTSIDE = {"database": {"existingSecret": "db"}}
HELM, SCALER, HANDED = "helm", "kube-controller-manager", "autoscaler"
MASTERS = ["enabled", "external"]


def release(replicas: int | None = 3, **autoscaling: Any) -> Release:
    return render(CHART, OUTSIDE | {"replicaCount": replicas, "autoscaling": autoscaling})


def spec(replicas: int | None = 3, **autoscaling: Any) -> dict[str, Any]:
    found: dict[str, Any] = release(replicas, **autoscaling).server.owner["spec"]
    return found


def three_pods() -> Deployment:
    live = Deployment()
    live.apply(HELM, spec())
    assert live.replicas == 3
    return live


@pytest.mark.parametrize("master", MASTERS)
def test_without_a_number_to_keep_the_default_counts_at_once(master: str) -> None:
    """What `keepReplicas` is for; were it otherwise, the value could go."""
    live = three_pods()

    live.apply(HELM, spec(**{master: True}))

    assert live.replicas == 1


@pytest.mark.parametrize("master", MASTERS)
def test_a_number_that_is_kept_stays_until_it_is_handed_over(master: str) -> None:
    live = three_pods()

    live.apply(HELM, spec(**{master: True}, keepReplicas=3))
    assert live.replicas == 3
    live.scale(SCALER, 3)  # it is content, and owns nothing by that
    live.apply(HANDED, {"replicas": 3})  # the command in the notes
    live.apply(HELM, spec(**{master: True}))
    assert live.replicas == 3
    live.scale(SCALER, 7)
    live.apply(HELM, spec(**{master: True}))

    assert live.replicas == 7


def test_once_the_autoscaler_has_moved_the_number_is_its_own() -> None:
    live = three_pods()
    live.apply(HELM, spec(enabled=True, keepReplicas=3))
    live.scale(SCALER, 5)

    with pytest.raises(ConflictError):
        live.apply(HELM, spec(enabled=True, keepReplicas=3))
    live.apply(HELM, spec(enabled=True))

    assert live.replicas == 5


def test_helm_3_keeps_it_too_and_gives_it_up_for_the_default() -> None:
    live = three_pods()
    kept = spec(enabled=True, keepReplicas=3)

    live.patch(spec(), kept)
    assert live.replicas == 3
    live.patch(kept, spec(enabled=True))

    assert live.replicas == 1


def test_the_notes_hand_over_what_is_kept() -> None:
    notes = release(enabled=True, keepReplicas=3).notes

    assert "spec: {replicas: 3}" in notes
    assert "kubectl -n prod apply --server-side --field-manager=autoscaler" in notes
    assert "autoscaling.keepReplicas=null" in notes
    assert "field-manager" not in release(enabled=True).notes
    assert "fell back to one pod" in render(CHART, OUTSIDE | {"autoscaling": {"enabled": True}}, revision=2).notes


@pytest.mark.parametrize("autoscaling", [{}, {"enabled": True}, {"external": True}])
def test_null_leaves_the_field_out(autoscaling: dict[str, Any]) -> None:
    found = release(None, **autoscaling)

    assert "replicas" not in found.server.owner["spec"]
    assert bool(found.of("PodDisruptionBudget")) == bool(autoscaling)  # only one pod is sure to run
