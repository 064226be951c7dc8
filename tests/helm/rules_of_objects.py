"""What the objects of a release have to be towards each other, over upgrades, and towards a cluster."""

from collections.abc import Iterator
from typing import Any

from service.platform.name import NAME as OUR_NAME
from tests.helm.charts import Object, Release, Shape, find

BUILT_IN = {
    "v1", "apps/v1", "batch/v1", "autoscaling/v2", "policy/v1", "networking.k8s.io/v1",
}  # fmt: skip
OWNERS = {"trial-database": "StatefulSet", "migration": "Job", "test": "Pod"}  # of pods, by their component
NAME = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")


def _title(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def _taken(release: Release, selector: dict[str, str]) -> set[str]:
    """Return the kinds of the owners whose pods a selector takes."""
    return {pod.owner["kind"] for pod in release.pods if selector.items() <= pod.labels.items()}


def objects_are_labelled_and_named(shape: Shape) -> Iterator[str]:
    seen = set()
    for one in shape.release.objects:
        title, metadata = _title(one), one["metadata"]
        if title in seen:
            yield f"{title} is there twice"
        seen.add(title)
        if one["kind"] == "ScaledObject":
            continue  # extraObjects come as they are
        if metadata.get("namespace") != "prod":
            yield f"{title} is in no namespace"
        if not {*NAME, "app.kubernetes.io/version", "helm.sh/chart"} <= metadata["labels"].keys():
            yield f"{title} lacks labels"
        # A StatefulSet's pods carry its name and 11 characters more in a label.
        if len(metadata["name"]) > (52 if one["kind"] == "StatefulSet" else 63):
            yield f"{title} is too long a name"


def selectors_never_change(shape: Shape) -> Iterator[str]:
    """They are immutable: an upgrade that changed one would be refused."""

    def selectors(release: Release) -> dict[str, Any]:
        return {_title(one): one["spec"]["selector"] for one in release.of("Deployment", "StatefulSet", "Service")}

    if selectors(shape.release) != selectors(shape.next_version):
        yield "a new version changes selectors"
    for title, selector in selectors(shape.release).items():
        labels = selector.get("matchLabels", selector)
        if set(labels) != set(NAME):
            yield f"{title} selects by {sorted(labels)}"


def selectors_take_the_right_pods(shape: Shape) -> Iterator[str]:
    for one in shape.release.of("Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "PodMonitor"):
        selector = one["spec"].get("selector", one["spec"].get("podSelector"))
        wanted = OWNERS.get(one["metadata"]["labels"]["app.kubernetes.io/component"], "Deployment")
        if (taken := _taken(shape.release, selector.get("matchLabels", selector))) != {wanted}:
            yield f"{_title(one)} takes the pods of {sorted(taken)}"


def ports_that_are_named_exist(shape: Shape) -> Iterator[str]:
    ports = {
        port["name"]: port["containerPort"]
        for pod in shape.release.pods
        for container in pod.containers
        for port in container.get("ports", [])
    }
    if {name: ports.get(name) for name in ("http", "management")} != {"http": 8000, "management": 9000}:
        yield f"the service's ports are {ports}"
    for one in shape.release.of("Service", "NetworkPolicy", "PodMonitor", "ServiceMonitor"):
        used = [*find(one["spec"], "targetPort"), *find(one["spec"], "port")]
        yield from (f"{_title(one)}: no port {n}" for n in used if isinstance(n, str) and n not in ports)
    yield from (f"{name} is too long for a port's name" for name in ports if len(name) > 15)
    backends = list(find(shape.release.of("Ingress"), "service"))
    for references in find(shape.release.of("HTTPRoute"), "backendRefs"):
        backends += references
    services = {one["metadata"]["name"]: one["spec"]["ports"][0] for one in shape.release.of("Service")}
    for backend in backends:
        port = services.get(backend["name"], {})
        if backend["port"] not in (port.get("port"), {"name": port.get("name")}):
            yield f"a route leads to {backend}, which is not there"


def management_stays_inside(shape: Shape) -> Iterator[str]:
    for service in shape.release.of("Service"):
        management = any(port["targetPort"] == "management" for port in service["spec"]["ports"])
        if management and service["spec"].get("clusterIP") != "None":
            yield "the management port is on a Service that can be made public"
        if any("appProtocol" not in port for port in service["spec"]["ports"] if port["name"] != "postgresql"):
            yield f"{_title(service)} does not say what its ports speak"
    for policy in shape.release.of("NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            if rule["ports"] != [{"port": "http"}] and not rule.get("from"):
                yield f"{_title(policy)} opens {rule['ports']} to everybody"


def a_policy_is_about_every_pod(shape: Shape) -> Iterator[str]:
    """One without is in nobody's way by itself, and cut off in a namespace that lets nothing out by default."""
    if not shape.release.values["networkPolicy"]["enabled"]:
        return
    selectors = [one["spec"]["podSelector"]["matchLabels"] for one in shape.release.of("NetworkPolicy")]
    for pod in shape.release.pods:
        if (policies := sum(selector.items() <= pod.labels.items() for selector in selectors)) != 1:
            yield f"{policies} policies are about {pod.name}"


def replicas_have_one_master(shape: Shape) -> Iterator[str]:
    scaling = shape.release.values["autoscaling"]
    elsewhere = bool(scaling["enabled"] or scaling["external"]) and not scaling.get("keepReplicas")
    if elsewhere == ("replicas" in shape.release.server.owner["spec"]):
        yield "the chart and an autoscaler both set replicas" if elsewhere else "nobody sets replicas"
    for scaler in shape.release.of("HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] != shape.release.server.owner["metadata"]["name"]:
            yield "the autoscaler scales something else"
        if scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] < 300:
            yield "the autoscaler sends people from pod to pod"
        for target in find(scaler["spec"]["metrics"], "target"):
            if not str(target.get("averageUtilization", target.get("averageValue"))).isdecimal():
                yield f"the autoscaler aims at {target}, which is no whole number"


def a_budget_never_blocks_a_drain(shape: Shape) -> Iterator[str]:
    values = shape.release.values
    scaling = values["autoscaling"]
    sure = scaling["minReplicas"] if scaling["enabled"] or scaling["external"] else values["replicaCount"]
    budgets = shape.release.of("PodDisruptionBudget")
    if bool(budgets) != (values["podDisruptionBudget"]["enabled"] and sure > 1):
        yield f"{len(budgets)} budgets over {sure} replicas"
    for budget in budgets:
        kept = values["podDisruptionBudget"].get("minAvailable")
        if kept is None and str(budget["spec"].get("maxUnavailable", 0)) in {"0", "0%"}:
            yield "the budget may allow nothing"
        if budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield "a broken pod blocks the drain of its node"


def rollouts_take_no_pod_away_first(shape: Shape) -> Iterator[str]:
    spec = shape.release.server.owner["spec"]
    if spec["strategy"] != {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}:
        yield f"a rollout takes pods away before new ones are ready: {spec['strategy']}"
    if spec["minReadySeconds"] < 1:
        yield "a new pod counts as soon as it is ready once"
    if spec["revisionHistoryLimit"] < 1:
        yield "there is nothing to roll back to"
    labels = spec["selector"]["matchLabels"]
    for spread in shape.release.server.spec["topologySpreadConstraints"]:
        if spread["matchLabelKeys"] != ["pod-template-hash"] or spread["labelSelector"]["matchLabels"] != labels:
            yield "old and new pods are spread as one"


def pods_restart_when_what_they_read_changes(shape: Shape) -> Iterator[str]:
    level = "info" if shape.release.values["config"].get("SERVICE_LOG_LEVEL") == "debug" else "debug"
    changes: list[dict[str, Any]] = [{"secretVersion": "other"}, {"config": {"SERVICE_LOG_LEVEL": level}}]
    if shape.release.values["database"]["trial"]["enabled"]:
        changes.append({"database": {"trial": {"enabled": True, "password": "other"}}})
    for change in changes:
        after = shape.with_values(change).server
        if (after.spec, after.annotations) == (shape.release.server.spec, shape.release.server.annotations):
            yield f"the pods do not notice {change}"


def the_trial_database_stays_up_over_upgrades(shape: Shape) -> Iterator[str]:
    for before, after in zip(shape.release.of("StatefulSet"), shape.next_version.of("StatefulSet"), strict=True):
        if before["spec"] != after["spec"]:
            yield "an upgrade of the service restarts its database"
        if before["spec"]["replicas"] != 1:
            yield "two PostgreSQLs would share one volume"
        if "volumeClaimTemplates" in before["spec"]:
            yield "the trial's volume outlives the release"


def the_trial_database_admits_only_ours(shape: Shape) -> Iterator[str]:
    if not shape.release.values["database"]["trial"]["enabled"]:
        return
    policies = [one["spec"] for one in shape.release.of("NetworkPolicy") if one["metadata"]["name"].endswith("-trial")]
    ours = {"app.kubernetes.io/name": OUR_NAME, "app.kubernetes.io/instance": "demo"}
    admitted = [[{"podSelector": {"matchLabels": ours}}]]
    if [rule.get("from") for policy in policies for rule in policy["ingress"]] != admitted:
        yield "others can reach the trial database"


def a_migration_runs_once_for_what_it_runs(shape: Shape) -> Iterator[str]:
    jobs = shape.release.of("Job")
    if bool(jobs) != (shape.release.values["migration"]["mode"] != "off"):
        yield f"{len(jobs)} Jobs"
    for job in jobs:
        spec = job["spec"]
        if "ttlSecondsAfterFinished" in spec:
            yield "the Job vanishes, and whoever compares makes it anew"
        if not spec.get("backoffLimit") or spec["template"]["spec"]["restartPolicy"] != "Never":
            yield "the Job does not try again in a pod of its own"
        if spec["template"]["spec"]["containers"][0]["args"][0] != "migrate":
            yield "the Job does something else"
    if shape.release.values["migration"]["mode"] != "job":
        return
    name = jobs[0]["metadata"]["name"]
    if name == shape.next_version.of("Job")[0]["metadata"]["name"]:
        yield "a new image changes the Job, which cannot be changed, under the same name"
    if name != shape.with_values({}, revision=7).of("Job")[0]["metadata"]["name"]:
        yield "the Job's name goes with the revision, which is always 1 under Argo CD"
    if jobs[0]["metadata"].get("annotations", {}).get("helm.sh/hook"):
        yield "the ordinary Job is a hook"


def a_hook_needs_nothing_that_is_not_there_yet(shape: Shape) -> Iterator[str]:
    hooks = [
        pod
        for pod in shape.release.pods
        if "pre-install" in pod.owner["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    ]
    if (shape.release.values["migration"]["mode"] == "hook") != bool(hooks):
        yield f"mode {shape.release.values['migration']['mode']} with {len(hooks)} hooks"
    made = {one["metadata"]["name"] for one in shape.release.of("ServiceAccount", "ConfigMap", "Secret")}
    for pod in hooks:
        annotations = pod.owner["metadata"]["annotations"]
        if annotations["helm.sh/hook"] != "pre-install,pre-upgrade":
            yield f"{pod.name} runs at {annotations['helm.sh/hook']}"
        if "before-hook-creation" not in annotations.get("helm.sh/hook-delete-policy", ""):
            yield f"{pod.name} blocks the next one of its name"
        needs = {pod.spec["serviceAccountName"], *find(pod.spec, "secretName")}
        needs |= {reference["name"] for kind in ("secretKeyRef", "configMapRef") for reference in find(pod.spec, kind)}
        if needs & made:
            yield f"{pod.name} waits for {sorted(needs & made)}, which come after it"


def foreign_kinds_come_by_choice(shape: Shape) -> Iterator[str]:
    values = shape.release.values
    chosen = {
        "HTTPRoute": values["httpRoute"]["enabled"],
        "ServiceMonitor": values["monitoring"]["serviceMonitor"],
        "PodMonitor": values["monitoring"]["podMonitor"],
        "PrometheusRule": values["monitoring"]["rules"],
    }
    extra = {one["kind"] for one in values["extraObjects"]}
    for one in shape.release.objects:
        if one["apiVersion"] not in BUILT_IN and not chosen.get(one["kind"]) and one["kind"] not in extra:
            yield f"{one['kind']} would break an install on a cluster that has no such kind"
