"""What Kubernetes and Helm make of a migration that ends badly: only a database that is away is worth a repeat."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.platform.verbs.program import CRASHED, FAILED, REFUSED, UNREACHABLE, WRONG
from tests.helm.charts import CHART, Object, render
from tests.helm.rules_of_pods import settings_of

OUTSIDE = {"database": {"existingSecret": "db"}}
KILLED = 137  # out of memory, for instance


def job(mode: str, **migration: Any) -> Object:
    [found] = render(CHART, OUTSIDE | {"migration": {"mode": mode} | migration}).of("Job")
    return found


def action(job: Object, code: int, *, disrupted: bool = False) -> str:
    """Return what the first rule that fits says, as the Job's controller reads them; without one it counts."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if any(fits(rule, code, disrupted=disrupted, container=container["name"])):
            return str(rule["action"])
    return "Count"


def fits(rule: Object, code: int, *, disrupted: bool, container: str) -> Iterator[bool]:
    for condition in rule.get("onPodConditions", []):
        yield disrupted and condition == {"type": "DisruptionTarget", "status": "True"}
    if codes := rule.get("onExitCodes"):
        assert codes.get("containerName") in (None, container)
        yield (code in codes["values"]) == (codes["operator"] == "In")


def test_the_owners_job_alone_grants_to_the_services_user() -> None:
    release = render(CHART, OUTSIDE | {"migration": {"existingSecret": "owner", "grantTo": "app"}})

    told = {
        pod.name.partition("/")[0]
        for pod in release.pods
        for one in pod.containers[0].get("env", [])
        if one == {"name": "SERVICE_MIGRATION_GRANT_TO", "value": "app"}
    }

    assert told == {"Job"}


@pytest.mark.parametrize(
    ("database", "migration", "secret", "key"),
    [
        ({}, {}, "db", "url"),
        ({"urlKey": "pooler"}, {}, "db", "pooler"),
        ({"urlKey": "pooler", "directUrlKey": "direct"}, {}, "db", "direct"),
        ({"urlKey": "pooler", "directUrlKey": "direct"}, {"urlKey": "mine"}, "db", "mine"),
        ({"urlKey": "dsn", "directUrlKey": "direct"}, {"existingSecret": "owner"}, "owner", "dsn"),
        ({"directUrlKey": "direct"}, {"existingSecret": "owner", "urlKey": "mine"}, "owner", "mine"),
    ],
)
def test_it_reads_its_address_where_the_values_say(database: Object, migration: Object, secret: str, key: str) -> None:
    """Past a pooler where that is said; an owner's secret has keys of its own."""
    release = render(CHART, {"database": {"existingSecret": "db"} | database, "migration": migration})

    [found] = release.of("Job")
    [address] = [
        one["valueFrom"]["secretKeyRef"]
        for one in found["spec"]["template"]["spec"]["containers"][0]["env"]
        if one["name"] == "SERVICE_DATABASE_URL"
    ]
    assert address == {"name": secret, "key": key}


@pytest.mark.parametrize(("migration", "has"), [({}, True), ({"existingSecret": "owner"}, False)])
def test_the_password_of_the_services_user_is_not_the_owners(migration: Object, *, has: bool) -> None:
    release = render(CHART, {"database": {"existingSecret": "db", "passwordKey": "password"}, "migration": migration})

    [found] = release.of("Job")
    names = {one["name"] for one in found["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert ("SERVICE_DATABASE_PASSWORD_FILE" in names) is has


@pytest.mark.parametrize(
    ("mode", "account", "name"),
    [
        ("job", {"name": "ours"}, "ours"),
        ("hook", {"name": "ours"}, "default"),
        ("hook", {"name": "theirs", "create": False}, "theirs"),
    ],
)
def test_a_hook_runs_as_whom_there_is_before_the_release(mode: str, account: Object, name: str) -> None:
    [found] = render(CHART, OUTSIDE | {"migration": {"mode": mode}, "serviceAccount": account}).of("Job")

    assert found["spec"]["template"]["spec"]["serviceAccountName"] == name


@pytest.mark.parametrize("mode", ["job", "hook"])
def test_it_starts_with_whatever_the_serving_pods_start_with(mode: str) -> None:
    """Settings are checked together: what was left out had its default, and the others did not fit to that."""
    slow = {"config": {"SERVICE_REQUEST_DEADLINE": 60}, "drain": {"delay": 1, "spread": 2, "gracefulTimeout": 90}}

    release = render(CHART, OUTSIDE | slow | {"migration": {"mode": mode}})

    [serving, migrating] = [
        settings_of(pod.spec["containers"][0]) for pod in release.pods if pod.owner["kind"] in {"Deployment", "Job"}
    ]
    assert (migrating.request_deadline, migrating.drain_bound) == (serving.request_deadline, serving.drain_bound)


def resolved(container: Object) -> dict[str, str]:
    """Return the environment as the kubelet makes it: `$(NAME)` is what stands before it, or stays as it is."""
    made: dict[str, str] = {}
    for one in container["env"]:
        value = str(one.get("value", one["name"].lower()))
        made[one["name"]] = re.sub(r"\$\((\w+)\)", lambda found: made.get(found[1], found[0]), value)
    return made


@pytest.mark.parametrize("mode", ["job", "hook"])
def test_a_setting_refers_to_other_names_in_every_pod(mode: str) -> None:
    """As to the address of its node: what stayed as it was is no address, and the migration ended with 2."""
    node = {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    config = {"SERVICE_TRUSTED_PROXIES": "$(NODE_IP)", "SERVICE_REVISION": "$(POD_NAME)"}

    release = render(CHART, OUTSIDE | {"config": config, "extraEnv": [node], "migration": {"mode": mode}})

    made = [resolved(pod.spec["containers"][0]) for pod in release.pods if pod.owner["kind"] in {"Deployment", "Job"}]
    assert [one["SERVICE_TRUSTED_PROXIES"] for one in made] == ["node_ip", "node_ip"]
    assert [one["SERVICE_REVISION"] for one in made] == ["pod_name", "pod_name"]


@pytest.mark.parametrize("mode", ["job", "hook"])
def test_only_a_database_that_is_away_is_asked_again(mode: str) -> None:
    found = job(mode)

    assert action(found, UNREACHABLE) == "Count"
    assert {code: action(found, code) for code in (CRASHED, WRONG, REFUSED, FAILED, KILLED)} == dict.fromkeys(
        (CRASHED, WRONG, REFUSED, FAILED, KILLED), "FailJob"
    )


@pytest.mark.parametrize("code", [CRASHED, UNREACHABLE, REFUSED, KILLED, 143])
def test_a_pod_that_was_sent_away_does_not_count(code: int) -> None:
    assert action(job("job"), code, disrupted=True) == "Ignore"


@pytest.mark.parametrize(("mode", "seconds"), [("job", "300"), ("hook", "60")])
def test_it_is_told_what_the_values_say(mode: str, seconds: str) -> None:
    resources = {"limits": {"memory": "1Gi"}}

    plain = job(mode)["spec"]
    told = job(mode, breaking=True, activeDeadlineSeconds=900, resources=resources)["spec"]

    [before], [container] = (one["template"]["spec"]["containers"] for one in (plain, told))
    assert before["args"] == ["migrate", "--wait", seconds]
    assert container["args"] == ["migrate", "--wait", seconds, "--breaking"]
    assert ("activeDeadlineSeconds" in plain, told["activeDeadlineSeconds"]) == (False, 900)
    assert container["resources"]["limits"]["memory"] == "1Gi"


def test_a_hook_ends_before_helm_stops_waiting_for_it() -> None:
    """Five minutes, unless told otherwise; after each failure the controller waits twice as long, from 10 s on."""
    found = job("hook", backoffLimit=6)["spec"]
    args = found["template"]["spec"]["containers"][0]["args"]

    tries = found["backoffLimit"] + 1
    longest = tries * int(args[args.index("--wait") + 1]) + sum(10 * 2**number for number in range(tries - 1))

    assert longest < 300


def test_a_hook_shows_its_log_where_it_failed_and_leaves_nothing() -> None:
    annotations = job("hook")["metadata"]["annotations"]

    assert annotations["helm.sh/hook-output-log-policy"] == "hook-failed"
    assert {"hook-succeeded", "hook-failed"} <= set(annotations["helm.sh/hook-delete-policy"].split(","))
