"""What every pod of a release has to be: each rule yields one sentence for each place that breaks it."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise

from service.features import FEATURES
from service.platform.feature import catalogue
from service.platform.settings import PlatformSettings
from service.platform.settings.words import is_secret
from service.platform.testing.settings import settings_of as make_settings
from service.settings import Settings
from tests.helm.charts import Object, Shape, find

KNOWN = catalogue(Settings, FEATURES)
SETTINGS = {one.variable: one.info for one in KNOWN}
SECRETS = {name for name, info in SETTINGS.items() if is_secret(info)}
ADDRESS = r"://[^/\s]*@"  # with a user in it
PROBES = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


def pods_are_restricted(shape: Shape) -> Iterator[str]:
    """The "restricted" standard of Kubernetes, and a root file system that cannot be written."""
    for pod in shape.release.pods:
        security = pod.spec.get("securityContext", {})
        if not (security.get("runAsNonRoot") and security.get("runAsUser") and security.get("runAsGroup")):
            yield f"{pod.name} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.name} has no seccomp profile"
        if any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{pod.name} shares its host's namespaces"
        for container in pod.containers:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{pod.name} may gain privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{pod.name} keeps capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{pod.name} may write its root file system"


def volumes_are_sized_and_mounted(shape: Shape) -> Iterator[str]:
    allowed = {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"}
    for pod in shape.release.pods:
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for name, volume in volumes.items():
            if not (volume.keys() - {"name"}) <= allowed:
                yield f"{pod.name} mounts {name} of a forbidden kind"
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
                yield f"{pod.name} may fill its node through {name}"
        mounts = {mount["name"]: mount["mountPath"] for one in pod.containers for mount in one.get("volumeMounts", [])}
        if volumes.keys() != mounts.keys():
            yield f"{pod.name} has volumes {sorted(volumes)} and mounts {sorted(mounts)}"
        if "/tmp" not in mounts.values():
            yield f"{pod.name} has no /tmp"


def pods_know_nothing_of_the_cluster(shape: Shape) -> Iterator[str]:
    for pod in shape.release.pods:
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name} holds a token"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.name} gets variables of other services, SERVICE_* among them"
    for account in shape.release.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield "the service account hands out its token"
    if shape.release.of("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        yield "the release has rights in the cluster"


def containers_are_bounded(shape: Shape) -> Iterator[str]:
    for pod in shape.release.pods:
        for container in pod.containers:
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            if not {"cpu", "memory", "ephemeral-storage"} <= requests.keys():
                yield f"{pod.name} does not request what it needs"
            if not {"memory", "ephemeral-storage"} <= limits.keys():
                yield f"{pod.name} has no limit of memory or storage"
            if "cpu" in limits:
                yield f"{pod.name} has a CPU limit, which stops the event loop"
            if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
                yield f"{pod.name} does not say why it ended"
            if container["image"].endswith(":latest") or not (":" in container["image"] or "@" in container["image"]):
                yield f"{pod.name} runs any version: {container['image']}"


def probes_ask_the_management_port(shape: Shape) -> Iterator[str]:
    container = shape.release.server.spec["containers"][0]
    for probe, path in PROBES.items():
        if probe not in container:
            if shape.release.values.get(probe):
                yield f"{probe} is missing"
        elif container[probe].get("httpGet") != {"path": path, "port": "management"}:
            yield f"{probe} asks {container[probe].get('httpGet')}"


def startup_has_time_to_wait_for_a_migration(shape: Shape) -> Iterator[str]:
    probe = shape.release.server.spec["containers"][0]["startupProbe"]
    budget = probe["periodSeconds"] * probe["failureThreshold"]
    if budget < 300:
        yield f"a pod has {budget} s to see its schema"
    if shape.release.server.owner["spec"]["progressDeadlineSeconds"] <= budget:
        yield "a rollout fails before its pods had their time to start"


def a_dead_pod_is_not_given_the_time_of_a_drain(shape: Shape) -> Iterator[str]:
    """Its peers wait for the end of it, and a process that does not answer does nothing with the time."""
    probe = shape.release.server.spec["containers"][0].get("livenessProbe")
    if probe and probe.get("terminationGracePeriodSeconds", 30) > 10:
        yield "a pod that is found dead is waited for"


def grace_is_as_long_as_the_drain(shape: Shape) -> Iterator[str]:
    pod = shape.release.server
    if any("lifecycle" in container for container in pod.containers):
        yield "a preStop hook hides from the process that it is leaving"
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    bound = math.ceil(settings_of(pod.spec["containers"][0]).drain_bound)
    wanted = shape.release.values.get("terminationGracePeriodSeconds")
    if grace != (wanted or bound):
        yield f"the drain may take {bound} s and the pod has {grace}"


def settings_of(container: Object) -> PlatformSettings:
    """Read what a container's environment says, as the service would; secrets are stood in for."""
    given = {
        one["name"]: one.get("value", "postgresql://user:password@host/name")
        for one in container["env"]
        if one["name"] in SETTINGS
    }
    return make_settings(KNOWN, **{name.removeprefix("SERVICE_").lower(): value for name, value in given.items()})


def environment_names_are_settings(shape: Shape) -> Iterator[str]:
    for pod in shape.release.pods:
        for container in pod.containers if pod.ours else []:
            names = [one["name"] for one in container.get("env", [])]
            yield from (f"{pod.name}: no setting is called {n}" for n in names if _foreign(n))
            yield from (f"{pod.name} names {a} twice" for a, b in pairwise(sorted(names)) if a == b)
            if names:
                settings_of(container)


def _foreign(name: str) -> bool:
    return name.startswith("SERVICE_") and name not in SETTINGS


def environment_says_who_speaks(shape: Shape) -> Iterator[str]:
    """OpenTelemetry learns pod, node and version; the fields must stand before the variable that uses them."""
    env = shape.release.server.spec["containers"][0]["env"]
    names = [one["name"] for one in env]
    fields = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in env if "fieldRef" in str(one)}
    if fields != {"POD_NAME": "metadata.name", "NODE_NAME": "spec.nodeName"}:
        yield f"the pod does not know itself: {fields}"
    attributes = next((one.get("value", "") for one in env if one["name"] == "OTEL_RESOURCE_ATTRIBUTES"), "")
    for wanted in ("k8s.pod.name=$(POD_NAME)", "k8s.node.name=$(NODE_NAME)", "service.version="):
        if wanted not in attributes:
            yield f"traces do not carry {wanted}"
    if names.index("OTEL_RESOURCE_ATTRIBUTES") < max(names.index("POD_NAME"), names.index("NODE_NAME")):
        yield "the attributes use fields that come after them"


def secrets_stay_in_secrets(shape: Shape) -> Iterator[str]:
    for pod in shape.release.pods:
        for container in pod.containers:
            for one in container.get("env", []):
                secret = one["name"] in SECRETS or one["name"] == "POSTGRES_PASSWORD"
                if "value" in one and (secret or re.search(ADDRESS, one["value"])):
                    yield f"{pod.name} shows {one['name']}"
            if re.search(ADDRESS, " ".join(container.get("args", []))):
                yield f"{pod.name} shows an address in its arguments"
    for config in shape.release.of("ConfigMap"):
        if any(word in str(config.get("data")).lower() for word in ("password", "postgresql://", "secret")):
            yield f"ConfigMap/{config['metadata']['name']} holds a secret"


def secrets_that_are_named_exist(shape: Shape) -> Iterator[str]:
    values = shape.release.values
    outside = {values[key]["existingSecret"] for key in ("database", "migration", "secrets")}
    made = {one["metadata"]["name"]: one["stringData"] for one in shape.release.of("Secret")}
    for pod in shape.release.pods:
        references = [(one["name"], one["key"]) for one in find(pod.spec, "secretKeyRef")]
        references += [(one["secretName"], item["key"]) for one in find(pod.spec, "secret") for item in one["items"]]
        for name, key in references:
            if not (name in outside or key in made.get(name, {})):
                yield f"{pod.name} wants {key} of {name}, which is neither given nor made"
