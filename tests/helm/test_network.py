"""What a cluster's network, registry and platform want to be told, and that it arrives where it belongs."""

from pathlib import Path
from typing import Any

import pytest

from service.platform.name import NAME
from tests.helm.charts import CHART, copy_chart, render

OUTSIDE = {"database": {"existingSecret": "db"}}
TRIAL = {"database": {"trial": {"enabled": True}}}
POLICY = {"networkPolicy": {"enabled": True}}
RULES = {"monitoring": {"rules": True}}


def service(**values: Any) -> dict[str, Any]:
    [public] = [
        one
        for one in render(CHART, OUTSIDE | {"service": values}).of("Service")
        if one["spec"].get("clusterIP") != "None"
    ]
    return public


def test_a_service_says_only_what_it_was_told() -> None:
    assert service()["spec"].keys() == {"type", "selector", "ports"}
    assert service()["spec"]["ports"][0].keys() == {"name", "port", "targetPort", "protocol", "appProtocol"}


def test_a_service_can_be_a_load_balancers() -> None:
    told = {
        "type": "LoadBalancer",
        "nodePort": 30080,
        "externalTrafficPolicy": "Local",
        "ipFamilyPolicy": "PreferDualStack",
        "loadBalancerClass": "example.org/lb",
        "trafficDistribution": "PreferClose",
    }

    made = service(**told, labels={"team": "a"})

    assert made["metadata"]["labels"]["team"] == "a"
    assert made["spec"]["ports"][0]["nodePort"] == 30080
    assert made["spec"].items() >= {key: told[key] for key in told if key != "nodePort"}.items()


def test_an_ingress_leads_the_paths_it_is_told() -> None:
    paths = [{"path": "/api", "pathType": "Exact"}, {"path": "/"}]
    ingress = {"enabled": True, "hosts": ["a.example", "b.example"], "paths": paths}

    rules = render(CHART, OUTSIDE | {"ingress": ingress}).of("Ingress")[0]["spec"]["rules"]

    assert len(rules) == 2
    for rule in rules:
        assert [(one["path"], one["pathType"]) for one in rule["http"]["paths"]] == [("/api", "Exact"), ("/", "Prefix")]


@pytest.mark.parametrize(
    ("config", "ports"),
    [
        ({}, []),
        ({"ISSUER": "https://login.example.org/realms/main"}, [443]),
        ({"ISSUER": "https://login.example.org:8443/realms/main"}, [8443]),
        ({"ISSUER": "https://login.example.org/a:80/b"}, [443]),
        ({"ISSUER": "HTTPS://login.example.org:8443/realms/main"}, [8443]),
        ({"ISSUER": "https://[fd00::1]:8443/realms/main"}, [8443]),
        ({"ISSUER": "https://[fd00::1]/realms/main"}, [443]),
        ({"ISSUER": "https://login.example.org", "JWKS_URL": "https://keys.example.org:9443/keys"}, [443, 9443]),
    ],
)
def test_pods_may_reach_the_identity_provider(config: dict[str, str], ports: list[int]) -> None:
    given = {f"SERVICE_AUTH_{name}": value for name, value in config.items()}
    audience = {"SERVICE_AUTH_AUDIENCE": "orders"} if given else {}
    values = {"networkPolicy": {"enabled": True}, "config": given | audience}

    without, policies = (render(CHART, OUTSIDE | one).of("NetworkPolicy") for one in (POLICY, values))

    rules = next(one["spec"]["egress"] for one in policies if one["spec"]["podSelector"].get("matchLabels"))
    before = next(one["spec"]["egress"] for one in without if one["spec"]["podSelector"].get("matchLabels"))
    assert [rule["ports"][0]["port"] for rule in rules if rule not in before] == ports
    assert rules[: len(before)] == before


@pytest.mark.parametrize(
    ("values", "port"),
    [
        ({"otlpEndpoint": "http://collector.monitoring:4318"}, 4318),
        ({"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4319"}]}, 4319),
        ({"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "https://collector/v1/traces"}]}, 443),
        ({"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "HTTP://collector:4319"}]}, 4319),
        ({"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "HTTPS://collector"}]}, 443),
        (
            {
                "otlpEndpoint": "http://collector:4318",
                "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4319"}],
            },
            4319,
        ),
        (
            {
                "extraEnv": [
                    {"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "http://collector:4320/v1/traces"},
                    {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4319"},
                ]
            },
            4320,
        ),
    ],
)
def test_pods_may_reach_the_collector_of_traces_wherever_it_is_said(values: dict[str, Any], port: int) -> None:
    without, policies = (render(CHART, OUTSIDE | POLICY | one).of("NetworkPolicy") for one in ({}, values))

    assert [rule["ports"] for rule in policies[0]["spec"]["egress"] if rule not in without[0]["spec"]["egress"]] == [
        [{"port": port}]
    ]


@pytest.mark.parametrize("mode", ["job", "hook"])
def test_a_migration_reaches_its_database_and_nobody_reaches_it(mode: str) -> None:
    release = render(CHART, OUTSIDE | POLICY | {"migration": {"mode": mode}})
    policies = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in release.of("NetworkPolicy")}
    [job], policy = release.of("Job"), policies["migration"]

    assert (policy["spec"]["ingress"], policy["spec"]["egress"]) == ([], policies["server"]["spec"]["egress"])
    hook, of_the_policy = (
        {name: value for name, value in one["metadata"].get("annotations", {}).items() if name.startswith("helm.sh/")}
        for one in (job, policy)
    )
    hook.pop("helm.sh/hook-output-log-policy", None)
    assert of_the_policy == (hook | {"helm.sh/hook-weight": "-1"} if mode == "hook" else {})


def test_pods_may_ask_for_names_wherever_a_cluster_has_its_servers() -> None:
    """Behind their Service those of OpenShift listen on 5353, and a policy counts that port."""
    policies = render(CHART, OUTSIDE | POLICY | {"workers": {"enabled": True}}).of("NetworkPolicy")

    wanted = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    assert len(policies) == 4
    assert [one["spec"]["egress"][0] for one in policies] == [{"ports": wanted}] * 4


def test_a_test_reaches_the_service_and_what_the_service_reaches() -> None:
    release = render(CHART, OUTSIDE | POLICY)
    policies = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in release.of("NetworkPolicy")}
    ours = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": "demo"}

    *usual, service = policies["test"]["spec"]["egress"]

    assert usual == policies["server"]["spec"]["egress"]
    assert service == {"ports": [{"port": 8000}, {"port": 9000}], "to": [{"podSelector": {"matchLabels": ours}}]}


@pytest.mark.parametrize(
    ("values", "replicas", "host"),
    [
        ({"replicaCount": 3, "config": {"SERVICE_ALLOWED_HOSTS": ""}}, "2", []),
        ({"replicaCount": 1, "config": {"SERVICE_ALLOWED_HOSTS": ""}}, "1", []),
        (
            {"replicaCount": 2, "config": {"SERVICE_ALLOWED_HOSTS": "a.example, b.example"}},
            "2",
            ["--host", "a.example"],
        ),
    ],
)
def test_helm_test_asks_the_pods_themselves_and_checks_the_database(
    values: dict[str, Any], replicas: str, host: list[str]
) -> None:
    release = render(CHART, OUTSIDE | values)
    [headless] = [one["metadata"]["name"] for one in release.of("Service") if one["spec"].get("clusterIP") == "None"]
    tests = {one["metadata"]["name"].rpartition("-")[2]: one for one in release.of("Pod")}
    health, database = (tests[name]["spec"]["containers"][0] for name in ("health", "database"))

    assert {one["metadata"]["annotations"]["helm.sh/hook"] for one in tests.values()} == {"test"}
    assert {one["spec"]["restartPolicy"] for one in tests.values()} == {"Never"}  # Helm waits for its end
    assert health["args"] == ["smoke", f"http://{headless}:8000", "--replicas", replicas, *host]
    assert "env" not in health
    assert database["args"] == ["check"]
    assert "SERVICE_DATABASE_URL" in {one["name"] for one in database["env"]}


def test_a_test_that_failed_makes_place_for_the_next() -> None:
    policies = {
        one["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for one in render(CHART, OUTSIDE).of("Pod")
    }

    assert policies == {"before-hook-creation,hook-succeeded"}


def test_a_policy_lets_in_and_out_whom_the_values_name() -> None:
    def somebody(name: str) -> dict[str, Any]:
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}

    named = {"publicFrom": [somebody("ingress")], "monitoringFrom": [somebody("monitoring")]}
    more = {"ports": [{"port": 6379}], "to": [somebody("cache")]}
    database = {"databasePorts": [5433, 6432], "databaseTo": [somebody("database")]}

    release = render(CHART, OUTSIDE | {"networkPolicy": {"enabled": True, "extraEgress": [more]} | named | database})

    own = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": "demo"}}}
    policies = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"] for one in release.of("NetworkPolicy")
    }
    served = policies["server"]
    assert served["ingress"] == [
        {"ports": [{"port": "http"}], "from": [somebody("ingress"), own]},
        {"ports": [{"port": "management"}], "from": [own, somebody("monitoring")]},
    ]
    names, *others = served["egress"]
    assert [one for one in names["ports"] if one["port"] == 53] == [
        {"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")
    ]
    assert others == [
        {"ports": [{"port": 5433}, {"port": 6432}], "to": [somebody("database")]},
        more,
    ]
    assert [policies[one]["ingress"] for one in ("migration", "test")] == [[], []]
    assert all(policy["policyTypes"] == ["Ingress", "Egress"] for policy in policies.values())


def test_an_ingress_is_told_its_class_and_its_certificates() -> None:
    tls = [{"secretName": "tls", "hosts": ["a.example"]}]
    told = {"className": "nginx", "annotations": {"example.org/a": "b"}, "tls": tls}

    [made] = render(CHART, OUTSIDE | {"ingress": {"enabled": True, "hosts": ["a.example"]} | told}).of("Ingress")

    assert (made["spec"]["ingressClassName"], made["spec"]["tls"]) == ("nginx", tls)
    assert made["metadata"]["annotations"]["example.org/a"] == "b"


def test_a_route_is_told_its_names_and_how_long_it_may_take() -> None:
    names = ["a.example"]
    told = {"hostnames": names, "annotations": {"example.org/a": "b"}, "timeouts": {"request": "0s"}}
    route = {"enabled": True, "parentRefs": [{"name": "public"}]}

    [made] = render(CHART, OUTSIDE | {"httpRoute": route | told}).of("HTTPRoute")

    assert made["spec"]["hostnames"] == names
    assert [one["name"] for one in made["spec"]["parentRefs"]] == ["public"]
    assert made["spec"]["rules"][0]["timeouts"] == {"request": "0s"}
    assert made["metadata"]["annotations"]["example.org/a"] == "b"


@pytest.mark.parametrize("given", [{}, {"group": "", "kind": "Service", "port": 80}])
def test_a_route_says_what_the_cluster_would_fill_in(given: dict[str, Any]) -> None:
    """The defaults of the kind's definition: who compares what is there with what is rendered finds no difference."""
    route = {"enabled": True, "parentRefs": [{"name": "public"} | given]}

    [made] = render(CHART, OUTSIDE | {"httpRoute": route}).of("HTTPRoute")

    [rule], [service] = made["spec"]["rules"], render(CHART, OUTSIDE).of("Service")[:1]
    assert made["spec"]["parentRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"} | given
    ]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert rule["backendRefs"] == [
        {"group": "", "kind": "Service", "name": service["metadata"]["name"], "port": 80, "weight": 1}
    ]


def test_a_route_carries_filters() -> None:
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["X-Secret"]}}]
    route = {"enabled": True, "parentRefs": [{"name": "public"}], "filters": filters}

    [rule] = render(CHART, OUTSIDE | {"httpRoute": route}).of("HTTPRoute")[0]["spec"]["rules"]

    assert rule["filters"] == filters


@pytest.mark.parametrize(
    ("repository", "image"),
    [
        ("shop", "mirror.example/shop:1"),
        ("ghcr.io/example/shop", "mirror.example/example/shop:1"),
        ("localhost:5000/shop", "mirror.example/shop:1"),
        ("example/shop", "mirror.example/example/shop:1"),
    ],
)
def test_every_image_comes_from_the_registry_of_all_charts(repository: str, image: str) -> None:
    values = {"global": {"imageRegistry": "mirror.example"}, "image": {"repository": repository, "tag": "1"}}

    images = {one["image"] for pod in render(CHART, TRIAL | values).pods for one in pod.containers}

    assert images == {image, "mirror.example/library/postgres:18"}


def test_a_platform_may_choose_the_users_id() -> None:
    """As OpenShift does: an id of one's own is refused there."""
    free = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    database = {"trial": {"enabled": True, "podSecurityContext": free}}

    pods = render(CHART, {"database": database, "podSecurityContext": free}).pods

    assert [pod.spec["securityContext"] for pod in pods] == [
        {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    ] * len(pods)


@pytest.mark.parametrize(
    ("sure", "kept", "allowed"), [(3, 2, True), (3, "50%", True), (3, 3, False), (3, "75%", False), (2, "100%", False)]
)
def test_a_budget_can_say_what_must_stay_if_that_lets_a_node_drain(sure: int, kept: int | str, allowed: bool) -> None:
    values = OUTSIDE | {"replicaCount": sure, "podDisruptionBudget": {"minAvailable": kept}}
    if not allowed:
        with pytest.raises(Exception, match="no node could ever be drained"):
            render(CHART, values)
        return

    [budget] = render(CHART, values).of("PodDisruptionBudget")

    assert budget["spec"]["minAvailable"] == kept
    assert "maxUnavailable" not in budget["spec"]


def test_alerts_lead_to_the_runbook_of_a_place_that_is_named() -> None:
    def annotations(**monitoring: Any) -> list[dict[str, str]]:
        [made] = render(CHART, OUTSIDE | {"monitoring": {"rules": True} | monitoring}).of("PrometheusRule")
        return [rule["annotations"] for group in made["spec"]["groups"] for rule in group["rules"]]

    assert all("runbook_url" not in one for one in annotations())
    for one in annotations(runbookBase="https://example.org/shop/blob/v1/"):
        assert one["runbook_url"] == f"https://example.org/shop/blob/v1/{one['runbook']}"


def test_a_rule_that_records_has_no_runbook(tmp_path: Path) -> None:
    recording = "      - {record: 'orders:max', expr: max(orders)}"
    chart = copy_chart(tmp_path / "chart", "observability/rules.yaml", "    rules:\n", f"    rules:\n{recording}\n")
    monitoring = {"rules": True, "runbookBase": "https://example.org"}
    [made] = render(chart, OUTSIDE | {"monitoring": monitoring}).of("PrometheusRule")

    assert {"record": "orders:max", "expr": "max(orders)"} in made["spec"]["groups"][0]["rules"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"service": {"nodePort": 30080}}, "service.nodePort needs"),
        ({"service": {"externalTrafficPolicy": "Local"}}, "service.externalTrafficPolicy needs"),
        ({"service": {"type": "NodePort", "loadBalancerClass": "a"}}, "service.loadBalancerClass needs"),
        ({"service": {"labels": {"app.kubernetes.io/name": "a"}}}, "service.labels: app.kubernetes.io/name is set by"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        render(CHART, OUTSIDE | values)


def test_an_autoscaler_counts_the_cpu_of_the_service_alone() -> None:
    """By all containers it could not count where one of them requests none, and would never scale."""
    beside = {"extraContainers": [{"name": "shipper", "image": "b:1"}], "autoscaling": {"enabled": True}}

    release = render(CHART, OUTSIDE | beside)

    [metric] = release.of("HorizontalPodAutoscaler")[0]["spec"]["metrics"]
    [counted] = [one for one in release.server.containers if one["name"] == metric["containerResource"]["container"]]
    assert metric["type"] == "ContainerResource"
    assert metric["containerResource"]["name"] in counted["resources"]["requests"]


@pytest.mark.parametrize(
    "endpoint", ["http://collector:61234", "http://[fd00::1]:4318", "https://[fd00::1]/v1", "http://collector:65535"]
)
def test_traces_go_to_any_address_and_port_that_there_is(endpoint: str) -> None:
    env = render(CHART, OUTSIDE | {"otlpEndpoint": endpoint}).server.spec["containers"][0]["env"]

    assert {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint} in env


@pytest.mark.parametrize("endpoint", ["http://collector:65536", "http://collector:0", "collector:4318", "http://[fd00"])
def test_traces_go_to_no_other(endpoint: str) -> None:
    with pytest.raises(Exception, match="does not match pattern"):
        render(CHART, OUTSIDE | {"otlpEndpoint": endpoint})
