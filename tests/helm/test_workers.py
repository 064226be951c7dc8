"""Workers of their own: pods that run jobs, that nobody is led to, and beside which the serving ones run none."""

from typing import Any

import pytest

from tests.helm.charts import CHART, Pod, render

OUTSIDE = {"database": {"existingSecret": "db"}}


def pods(**values: Any) -> dict[str, Pod]:
    made = [pod for pod in render(CHART, OUTSIDE | values).pods if pod.owner["kind"] == "Deployment"]
    return {pod.labels["app.kubernetes.io/component"]: pod for pod in made}


def environment(pod: Pod) -> dict[str, str]:
    names = [one["name"] for one in pod.spec["containers"][0]["env"]]
    assert len(names) == len(set(names))
    return {one["name"]: one.get("value", "") for one in pod.spec["containers"][0]["env"]}


def test_without_them_the_serving_pods_run_jobs() -> None:
    assert pods().keys() == {"server"}
    assert "SERVICE_JOBS_CONCURRENCY" not in environment(pods()["server"])


def test_beside_them_the_serving_pods_run_none() -> None:
    found = pods(workers={"enabled": True, "replicaCount": 3, "concurrency": 20})
    worker = found["workers"]

    assert environment(found["server"])["SERVICE_JOBS_CONCURRENCY"] == "0"
    assert environment(worker)["SERVICE_JOBS_CONCURRENCY"] == "20"
    assert worker.owner["spec"]["replicas"] == 3
    assert worker.spec["containers"][0]["args"] == ["work"]
    assert [port["name"] for port in worker.spec["containers"][0]["ports"]] == ["management"]
    assert worker.spec["terminationGracePeriodSeconds"] == found["server"].spec["terminationGracePeriodSeconds"]
    assert worker.spec["containers"][0]["readinessProbe"] == found["server"].spec["containers"][0]["readinessProbe"]


def test_what_config_says_of_the_serving_pods_is_not_said_of_the_workers() -> None:
    found = pods(workers={"enabled": True}, config={"SERVICE_JOBS_CONCURRENCY": 2})

    assert environment(found["server"])["SERVICE_JOBS_CONCURRENCY"] == "2"
    assert environment(found["workers"])["SERVICE_JOBS_CONCURRENCY"] == "10"


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor"])
def test_they_are_watched_and_fenced_in_like_the_others_and_nobody_is_led_to_them(kind: str) -> None:
    values = {"workers": {"enabled": True}, "monitoring": {kind: True}, "networkPolicy": {"enabled": True}}
    release = render(CHART, OUTSIDE | values)
    monitors = release.of("ServiceMonitor", "PodMonitor")
    policies = {
        one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: one["spec"]
        for one in release.of("NetworkPolicy")
    }

    watched = {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in monitors}
    assert watched == {"server", "workers"}
    assert [rule["ports"] for rule in policies["workers"]["ingress"]] == [[{"port": "management"}]]
    assert policies["workers"]["egress"] == policies["server"]["egress"]
    led = [one for one in release.of("Service") if one["spec"]["selector"]["app.kubernetes.io/component"] == "workers"]
    assert [port["name"] for one in led for port in one["spec"]["ports"]] == ["management"]
