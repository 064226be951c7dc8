"""What values may be: wrong ones stop the install with one clear sentence; generated files agree with their sources."""

import math
import re
from pathlib import Path
from typing import Any

import helm_python
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helm.generate import OWNED, make_schema, outputs, own_secrets, parse_values
from tests.helm.charts import CHART, copy_chart, render
from tests.helm.draws import numbers
from tests.helm.rules_of_pods import KNOWN, settings_of

OUTSIDE = {"database": {"existingSecret": "db"}}
TRIAL = {"database": {"trial": {"enabled": True}}}
# Said here where a sentence counts with it: what a clone has as its own default may be another.
DRAIN = {"drain": {"delay": 5, "spread": 5, "gracefulTimeout": 15}}
DEADLINE = {"config": {"SERVICE_REQUEST_DEADLINE": 10}}
TWO = {"replicaCount": 2}
ANY_HOST = {"config": {"SERVICE_ALLOWED_HOSTS": ""}}

SECRET = "SERVICE_AUTH_CLIENT_SECRET"  # a setting's name

MORE = {"name": "more", "emptyDir": {"sizeLimit": "1Mi"}}

WRONG: list[tuple[dict[str, Any], str]] = [
    # what the schema says, made from the settings class
    (OUTSIDE | {"config": {"SERVICE_REQEST_DEADLINE": 5}}, "'SERVICE_REQEST_DEADLINE' not allowed"),
    (OUTSIDE | {"config": {"SERVICE_MAX_REQUESTS": "many"}}, "got string, want integer"),
    (OUTSIDE | {"config": {"SERVICE_MAX_REQUESTS": 0}}, "got 0, want 1"),
    (OUTSIDE | {"strategy": {"type": "Rollingupdate"}}, "at '/strategy/type': value must be one of"),
    (OUTSIDE | {"strategy": {"type": 0}}, "at '/strategy/type': value must be one of"),
    (OUTSIDE | {"monitoring": {"rules": True, "runbookBase": "http://\x7f"}}, "at '/monitoring/runbookBase'"),
    (OUTSIDE | {"otlpEndpoint": "http://collector:4318/\x85"}, "at '/otlpEndpoint'"),
    (OUTSIDE | {"config": {"SERVICE_LOG_LEVEL": "loud"}}, "'debug', 'info', 'warning', 'error'"),
    (OUTSIDE | {"config": {"SERVICE_DRAIN_DELAY": 5}}, "'SERVICE_DRAIN_DELAY' not allowed"),
    (OUTSIDE | {"config": {"SERVICE_DATABASE_URL": "postgresql://a"}}, "'SERVICE_DATABASE_URL' not allowed"),
    (OUTSIDE | {"drain": {"delay": 601}}, "got 601, want 600"),
    (OUTSIDE | {"replicas": 3}, "'replicas' not allowed"),
    (OUTSIDE | {"replicaCount": "3"}, "got string, want null or integer"),
    (OUTSIDE | {"migration": {"mode": "sometimes"}}, "'job', 'hook', 'off'"),
    (OUTSIDE | {"image": {"digest": "latest"}}, "does not match pattern"),
    ({"database": {"trial": {"enabled": True, "replicas": 2}}}, "'replicas' not allowed"),
    # what the server would refuse, or take for something else
    (OUTSIDE | {"config": None}, "missing property 'config'"),
    (OUTSIDE | {"database": {"existingSecret": "db", "trial": None}}, "missing property 'trial'"),
    (OUTSIDE | {"resources": None}, "missing property 'resources'"),
    (OUTSIDE | {"drain": {"delay": None}}, "missing property 'delay'"),
    (OUTSIDE | {"commonLabels": {"team": 5}}, "got number, want string"),
    (OUTSIDE | {"commonLabels": {"team": "a b"}}, "'a b' does not match pattern"),
    (OUTSIDE | {"commonLabels": {"a/b/c": "d"}}, "invalid propertyName 'a/b/c'"),
    (OUTSIDE | {"podLabels": {"team": True}}, "got boolean, want string"),
    (OUTSIDE | {"commonAnnotations": {"example.org/a": 5}}, "got number, want string"),
    (OUTSIDE | {"podAnnotations": {"example.org/a": True}}, "got boolean, want string"),
    (OUTSIDE | {"service": {"annotations": {"example.org/a": 5}}}, "got number, want string"),
    (OUTSIDE | {"monitoring": {"labels": {"a": 1}}}, "got number, want string"),
    (OUTSIDE | {"fullnameOverride": "12345"}, "'12345' does not match pattern"),
    (OUTSIDE | {"fullnameOverride": "Demo"}, "'Demo' does not match pattern"),
    (OUTSIDE | {"tmpSize": "64 Mi"}, "'64 Mi' does not match pattern"),
    (OUTSIDE | {"extraEnv": [{"name": "A", "value": 5}]}, "got number, want string"),
    (OUTSIDE | {"extraEnv": [{"name": "A", "valeu": "5"}]}, "'valeu' not allowed"),
    (OUTSIDE | {"networkPolicy": {"databasePorts": []}}, "at '/networkPolicy/databasePorts': minItems: got 0, want 1"),
    (OUTSIDE | {"ingress": {"paths": []}}, "at '/ingress/paths': minItems: got 0, want 1"),
    (
        OUTSIDE | {"ingress": {"tls": [{"hosts": "a.example"}]}},
        "'/ingress/tls/0/hosts': got string, want null or array",
    ),
    (OUTSIDE | {"ingress": {"hosts": ["a.example", "b.example", "a.example"]}}, "items at 0 and 2 are equal"),
    (OUTSIDE | {"secrets": {"existingSecret": "a", "keys": {SECRET: "a b"}}}, "'a b' does not match pattern"),
    (OUTSIDE | {"extraVolumeMounts": [{"name": "tmp"}]}, "missing property 'mountPath'"),
    (
        OUTSIDE | {"image": {"repository": "example/shop:1.2"}},
        "example/shop:1.2, with a version: that belongs in image.tag",
    ),
    (OUTSIDE | {"image": {"repository": "example/"}}, "'example/' does not match pattern"),
    (
        OUTSIDE | {"global": {"imageRegistry": "https://mirror.example"}},
        "'https://mirror.example' does not match pattern",
    ),
    (OUTSIDE | {"migration": {"grantTo": "app"}}, "migration.existingSecret, the owner's address, is empty"),
    (OUTSIDE | {"podDisruptionBudget": {"maxUnavailable": "101%"}}, "'101%' does not match pattern"),
    (OUTSIDE | {"podDisruptionBudget": {"maxUnavailable": "00%"}}, "'00%' does not match pattern"),
    (OUTSIDE | {"podDisruptionBudget": {"maxUnavailable": 0}}, "got 0, want 1"),
    (OUTSIDE | {"podDisruptionBudget": {"maxUnavailable": "0%"}}, "'0%' does not match pattern"),
    (OUTSIDE | {"commonLabels": {"app.kubernetes.io/component": "web"}}, "selectors go by it"),
    (
        OUTSIDE | {"podLabels": {"app.kubernetes.io/name": "web"}},
        "podLabels: app.kubernetes.io/name is set by the chart",
    ),
    (OUTSIDE | {"podSpec": {"containers": [{"name": "a", "image": "b"}]}}, "use extraContainers"),
    (OUTSIDE | {"podSpec": {"initContainers": []}}, "use initContainers"),
    (OUTSIDE | {"podSpec": {"volumes": []}}, "use extraVolumes"),
    (OUTSIDE | {"podSpec": {"restartPolicy": "Always"}}, "podSpec.restartPolicy"),
    (OUTSIDE | {"extraContainers": [{"name": "service", "image": "b"}]}, "extraContainers: the name service is taken"),
    (
        OUTSIDE | {"extraVolumes": [MORE], "extraVolumeMounts": [{"name": "more", "mountPath": "/tmp/"}]},
        "extraVolumeMounts: /tmp is mounted already, as tmp",
    ),
    (
        OUTSIDE | {"extraVolumeMounts": [{"name": "tmp", "mountPath": "/a"}, {"name": "tmp", "mountPath": "/a"}]},
        "extraVolumeMounts: /a is mounted already, as tmp",
    ),
    (
        OUTSIDE | {"extraVolumes": [MORE], "extraVolumeMounts": [{"name": "mor", "mountPath": "/a"}]},
        "extraVolumeMounts: no volume is called mor: there are more, tmp",
    ),
    (OUTSIDE | {"strategy": {"rollingUpdate": {"maxSurge": 0}}}, "set strategy.rollingUpdate.maxUnavailable=1"),
    (
        OUTSIDE | {"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}}},
        "no pod could ever be replaced",
    ),
    (OUTSIDE | {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "extraEnv names A twice"),
    ({"database": {"trial": {"enabled": True}, "urlKey": "postgres-password"}}, "holds the trial database's password"),
    # what values are together
    ({}, "no database: create a Secret"),
    ({"database": {"existingSecret": "db", "trial": {"enabled": True}}}, "choose one database"),
    (TRIAL | {"migration": {"mode": "hook"}}, "migration.mode=hook runs before anything of this release exists"),
    ({"database": {"trial": {"enabled": True}, "passwordKey": "a"}}, "the trial database has neither"),
    (
        TRIAL | {"migration": {"urlKey": "owner"}},
        "migration.urlKey and migration.existingSecret lead to another database",
    ),
    (
        TRIAL | {"migration": {"existingSecret": "owner", "grantTo": "app"}},
        "migration.urlKey and migration.existingSecret lead to another database",
    ),
    (OUTSIDE | {"config": {"SERVICE_DATABASE_POOLED": True}}, "need an address past the pooler"),
    (OUTSIDE | {"extraEnv": [{"name": "SERVICE_DRAIN_DELAY", "value": "1"}]}, "set by the chart"),
    (OUTSIDE | {"extraEnv": [{"name": "SERVICE_BIND", "value": ":1"}]}, "use service.port"),
    (OUTSIDE | {"extraEnv": [{"name": "SERVICE_LOG_LEVEL", "value": "info"}]}, "use config.SERVICE_LOG_LEVEL"),
    # the service reads names in any case
    (
        OUTSIDE | {"extraEnv": [{"name": "service_drain_spread", "value": "1"}]},
        "service_drain_spread is set by the chart",
    ),
    (OUTSIDE | {"extraEnv": [{"name": "Service_Max_Requests", "value": "1"}]}, "use config.SERVICE_MAX_REQUESTS"),
    (
        OUTSIDE | {"extraEnv": [{"name": "service_auth_client_secret", "value": "hunter2"}]},
        "use secrets.existingSecret and secrets.keys.SERVICE_AUTH_CLIENT_SECRET",
    ),
    (
        OUTSIDE | DEADLINE | {"drain": {"gracefulTimeout": 5}},
        "drain.gracefulTimeout is 5, below config.SERVICE_REQUEST_DEADLINE, 10",
    ),
    (OUTSIDE | {"config": {"SERVICE_REQUEST_DEADLINE": 60}}, "below config.SERVICE_REQUEST_DEADLINE, 60"),
    (OUTSIDE | DRAIN | {"terminationGracePeriodSeconds": 29}, "is 29, and a drain may take 30"),
    (OUTSIDE | DRAIN | {"podSpec": {"terminationGracePeriodSeconds": 1}}, "is 1, and a drain may take 30"),
    (OUTSIDE | DRAIN | {"podSpec": {"terminationGracePeriodSeconds": 0}}, "is 0, and a drain may take 30"),
    (OUTSIDE | DRAIN | {"podSpec": {"terminationGracePeriodSeconds": None}}, "is null, and a drain may take 30"),
    (OUTSIDE | {"autoscaling": {"enabled": True, "external": True}}, "two would scale the same pods"),
    (
        OUTSIDE | {"autoscaling": {"minReplicas": 11}},
        "autoscaling.minReplicas is 11, above autoscaling.maxReplicas, 10",
    ),
    (OUTSIDE | {"autoscaling": {"keepReplicas": 3}}, "none is on: use replicaCount"),
    (OUTSIDE | {"autoscaling": {"enabled": True, "targetCPU": None}}, "nothing to scale by"),
    (
        OUTSIDE | {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        "autoscaling.targetCPU is 70 percent of resources.requests.cpu, which is empty",
    ),
    (
        OUTSIDE | {"config": {"SERVICE_AUTH_ISSUER": "https://a.example"}},
        "SERVICE_AUTH_ISSUER needs config.SERVICE_AUTH_AUDIENCE",
    ),
    (OUTSIDE | {"config": {"SERVICE_AUTH_AUDIENCE": "api"}}, "SERVICE_AUTH_AUDIENCE needs config.SERVICE_AUTH_ISSUER"),
    (
        OUTSIDE | {"config": {"SERVICE_AUTH_JWKS_URL": "https://a.example/keys"}},
        "SERVICE_AUTH_JWKS_URL needs config.SERVICE_AUTH_ISSUER",
    ),
    (
        OUTSIDE | {"config": {"SERVICE_AUTH_CLIENT_ID": "api"}},
        "SERVICE_AUTH_CLIENT_ID needs config.SERVICE_AUTH_ISSUER",
    ),
    (
        OUTSIDE | {"secrets": {"existingSecret": "s", "keys": {"SERVICE_AUTH_CLIENT_SECRET": "k"}}},
        "SERVICE_AUTH_CLIENT_SECRET needs config.SERVICE_AUTH_CLIENT_ID",
    ),
    (
        OUTSIDE | {"workers": {"enabled": True}, "readinessProbe": {"httpGet": {"port": "http"}}},
        "readinessProbe asks port http, on which workers do not listen: ask management",
    ),
    (
        OUTSIDE | {"workers": {"enabled": True}, "startupProbe": {"httpGet": None, "tcpSocket": {"port": 8000}}},
        "startupProbe asks port 8000, on which workers do not listen: ask management",
    ),
    (
        OUTSIDE | {"livenessProbe": {"exec": {"command": ["true"]}}},
        "livenessProbe has exec and httpGet, and a probe has one of exec, grpc, httpGet and tcpSocket: set",
    ),
    (OUTSIDE | {"startupProbe": {"httpGet": None}}, "startupProbe has none, and a probe has one of"),
    (OUTSIDE | {"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, "items at 0 and 1 are equal"),
    (OUTSIDE | {"httpRoute": {"hostnames": ["a.example"]}}, "httpRoute.parentRefs is empty"),
    (OUTSIDE | {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
    (OUTSIDE | {"ingress": {"enabled": True}}, "ingress.hosts is empty"),
    (
        OUTSIDE | {"ingress": {"enabled": True, "hosts": ["a.example", "10.0.0.1"]}},
        "ingress.hosts: 10.0.0.1 is an address",
    ),
    (
        OUTSIDE | {"httpRoute": {"parentRefs": [{"name": "public"}], "hostnames": ["10.0.0.1"]}},
        "httpRoute.hostnames: 10.0.0.1 is an address",
    ),
    (OUTSIDE | {"monitoring": {"serviceMonitor": True, "podMonitor": True}}, "each pod would be read twice"),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_a_wrong_value_stops_the_install_with_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm_python.HelmError) as caught:
        render(CHART, values)

    message = str(caught.value)
    assert sentence in message
    lines = message.splitlines()
    assert len([line for line in lines if line.startswith("- at ")] or lines) == 1


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(helm_python.HelmError) as caught:
        render(CHART, {"ingress": {"enabled": True}})

    assert "no database" in str(caught.value)
    assert "ingress.hosts" in str(caught.value)


def test_a_parent_chart_may_pass_what_helm_passes() -> None:
    assert render(CHART, TRIAL | {"global": {"anything": 1}, "enabled": True}).objects


@pytest.mark.parametrize("name", sorted(OWNED))
def test_a_setting_that_the_chart_owns_is_neither_in_config_nor_in_extra(name: str) -> None:
    with pytest.raises(helm_python.HelmError, match="set by the chart"):
        render(CHART, OUTSIDE | {"extraEnv": [{"name": name, "value": "1"}]})
    with pytest.raises(helm_python.HelmError, match="not allowed"):
        render(CHART, OUTSIDE | {"config": {name: "1"}})


seconds = st.one_of(st.integers(0, 600), st.floats(0, 600, allow_subnormal=False).map(lambda value: round(value, 3)))


@settings(max_examples=60, deadline=None)
@given(delay=seconds, spread=seconds, graceful=seconds.map(lambda value: value + 0.1))
def test_the_grace_is_the_drain_for_any_settings(delay: float, spread: float, graceful: float) -> None:
    drain = {"delay": delay, "spread": spread, "gracefulTimeout": graceful}
    deadline = {"SERVICE_REQUEST_DEADLINE": 0.1}

    pod = render(CHART, OUTSIDE | {"drain": drain, "config": deadline}).server

    told = settings_of(pod.spec["containers"][0])
    assert (told.drain_delay, told.drain_spread, told.graceful_timeout) == (delay, spread, graceful)
    assert math.isclose(pod.spec["terminationGracePeriodSeconds"], math.ceil(round(told.drain_bound, 6)))


def test_numbers_reach_the_service_as_they_were_written() -> None:
    """1048576 must not become 1.048576e+06, which is no whole number to the service."""
    ranged = {name: schema for name, schema in config_schema().items() if "minimum" in schema}
    assert len(ranged) > 5

    @settings(max_examples=40, deadline=None)
    @given(
        st.fixed_dictionaries(
            {}, optional={name: numbers(schema, whole=schema["type"] == "integer") for name, schema in ranged.items()}
        )
    )
    def check(config: dict[str, float]) -> None:
        drain = {"gracefulTimeout": 3600}
        told = settings_of(render(CHART, OUTSIDE | {"config": config, "drain": drain}).server.spec["containers"][0])
        seen = {name: getattr(told.of(KNOWN.find(name).group), KNOWN.find(name).field) for name in config}
        assert seen == config

    check()


def config_schema() -> dict[str, Any]:
    with helm_python.Chart.load(CHART) as chart:
        schema = chart.schema
    assert schema is not None
    properties: dict[str, Any] = schema["properties"]["config"]["properties"]
    return properties


def test_every_setting_is_in_config_or_has_its_place_in_the_values() -> None:
    assert set(KNOWN.variables) == config_schema().keys() | OWNED.keys() | {one.variable for one in own_secrets(KNOWN)}


@pytest.mark.parametrize("path", [path.relative_to(CHART) for path in outputs()], ids=str)
def test_generated_files_agree_with_their_sources(path: Path) -> None:
    assert (CHART / path).read_text() == outputs()[CHART / path], "run: make generate"


def test_a_new_value_without_words_is_seen() -> None:
    assert [value.description for value in parse_values("a: 1\n# What b is.\nb: 2\n")] == ["", "What b is."]


def test_a_default_of_the_clone_s_own_closes_no_mapping_to_others() -> None:
    text = (CHART / "values.yaml").read_text()
    filled = re.sub(r"(?m): \{\}$", ": {own: one}", text)

    assert make_schema(parse_values(filled), KNOWN) == make_schema(parse_values(text), KNOWN)


def test_every_value_is_described() -> None:
    def undescribed(values: list[Any]) -> list[str]:
        return [
            path
            for value in values
            for path in (undescribed(value.children) if value.children else [value.path] * (not value.description))
        ]

    assert undescribed(parse_values((CHART / "values.yaml").read_text())) == []


def test_the_margin_of_the_drain_is_the_services_own(tmp_path: Path) -> None:
    broken = copy_chart(tmp_path / "chart", "templates/_settings.tpl", '"drain_margin": 5.0', '"drain_margin": 4.0')

    told = render(broken, OUTSIDE).server

    assert told.spec["terminationGracePeriodSeconds"] != settings_of(told.spec["containers"][0]).drain_bound


def test_a_probe_can_be_removed_and_replaced() -> None:
    replaced = {"httpGet": None, "exec": {"command": ["true"]}, "periodSeconds": 7}

    container = render(CHART, OUTSIDE | {"livenessProbe": None, "readinessProbe": replaced}).server.containers[0]

    assert "livenessProbe" not in container
    assert container["readinessProbe"].items() >= {"exec": {"command": ["true"]}, "periodSeconds": 7}.items()
    assert "httpGet" not in container["readinessProbe"]


def test_what_the_values_have_no_key_for_goes_into_the_pods_spec() -> None:
    release = render(CHART, OUTSIDE | {"podSpec": {"dnsPolicy": "Default", "automountServiceAccountToken": True}})

    assert {pod.spec["dnsPolicy"] for pod in release.pods} == {"Default"}
    assert all(pod.spec["automountServiceAccountToken"] for pod in release.pods)  # merged last


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (TRIAL, "curl -s --retry 10 --retry-connrefused http://127.0.0.1:8000/livez"),
        (TRIAL, "The trial database is for trying out"),
        (TRIAL, "Nobody is asked who he is"),
        (TRIAL, "component=migration"),
        (TRIAL | {"replicaCount": 1}, "Fewer than two replicas"),
        (OUTSIDE | {"ingress": {"enabled": True, "hosts": ["a.example"]}}, "From outside: http://a.example/"),
        (OUTSIDE | {"ingress": {"enabled": True, "hosts": ["a.example"]}}, "no TLS"),
        (OUTSIDE | ANY_HOST | {"ingress": {"enabled": True, "hosts": ["a.example"]}}, "config.SERVICE_ALLOWED_HOSTS"),
        (
            OUTSIDE | {"ingress": {"enabled": True, "hosts": ["a.example"], "paths": [{"path": "/api"}]}},
            "From outside: http://a.example/api\n",
        ),
        (OUTSIDE | DRAIN | {"service": {"type": "LoadBalancer"}}, "15 to 30"),
        (
            OUTSIDE | TWO | {"podDisruptionBudget": {"maxUnavailable": "100%"}},
            "maxUnavailable is 100%, which is all of 2 pods",
        ),
        (
            OUTSIDE | TWO | {"podDisruptionBudget": {"maxUnavailable": "51%"}},
            "maxUnavailable is 51%, which is all of 2 pods",
        ),
        (OUTSIDE | TWO | {"podDisruptionBudget": {"maxUnavailable": 2}}, "maxUnavailable is 2, which is all of 2 pods"),
        (
            OUTSIDE | {"networkPolicy": {"enabled": True}, "monitoring": {"podMonitor": True}},
            "Prometheus cannot read the pods",
        ),
        (OUTSIDE | {"config": {"SERVICE_JOBS_CONCURRENCY": 0}}, "Nobody runs jobs"),
        (OUTSIDE | {"migration": {"mode": "off"}}, "once somebody has run `service migrate`"),
    ],
)
def test_the_notes_say_what_to_do_and_what_is_unsafe(values: dict[str, Any], said: str) -> None:
    assert said in render(CHART, values).notes


def test_the_notes_say_of_each_host_of_the_ingress_whether_it_has_tls() -> None:
    tls = [{"secretName": "a", "hosts": ["a.example", "*.c.example"]}]
    ingress = {"enabled": True, "hosts": ["a.example", "b.example", "d.c.example", "e.d.c.example"], "tls": tls}

    notes = render(CHART, OUTSIDE | {"ingress": ingress}).notes

    assert re.findall(r"From outside: (.*)", notes) == [
        "https://a.example/",
        "http://b.example/",
        "https://d.c.example/",
        "http://e.d.c.example/",
    ]
    assert "The Ingress has no TLS for b.example, e.d.c.example: what people write" in notes
    everywhere = {"ingress": ingress | {"tls": [{"secretName": "a"}]}}
    assert "http://b.example" not in render(CHART, OUTSIDE | everywhere).notes


def test_settings_that_need_each_other_may_be_where_the_chart_cannot_see() -> None:
    beside = {"extraEnvFrom": [{"configMapRef": {"name": "identity"}}]}

    assert render(CHART, OUTSIDE | beside | {"config": {"SERVICE_AUTH_ISSUER": "https://a.example"}}).objects


def test_the_notes_do_not_warn_of_what_is_safe() -> None:
    workers = {"config": {"SERVICE_JOBS_CONCURRENCY": 0}, "workers": {"enabled": True}}
    notes = render(CHART, OUTSIDE | TWO | workers | {"networkPolicy": {"enabled": True}}).notes

    assert "Nobody runs jobs" not in notes
    assert "maxUnavailable" not in notes
    assert "trial" not in notes
    assert "replicas" not in notes
    assert "9000: networkPolicy" not in notes
    assert "Prometheus" not in notes


def test_containers_of_the_user_run_where_they_can_end() -> None:
    proxy, shipper = {"name": "proxy", "image": "a:1", "restartPolicy": "Always"}, {"name": "shipper", "image": "b:1"}

    release = render(CHART, OUTSIDE | {"initContainers": [proxy], "extraContainers": [shipper]})

    assert all(pod.spec["initContainers"] == [proxy] for pod in release.pods)
    assert {pod.name for pod in release.pods if shipper in pod.spec["containers"]} == {release.server.name}
