"""Values of the chart, drawn from its schema; what is Kubernetes' own, and passed on, is drawn from examples."""

from typing import Any

import helm_python
from hypothesis import strategies as st

from helm.kinds import LIMIT
from tests.helm.charts import CHART

# What YAML may read as something else, and what ends a scalar when nobody has quoted it.
ODD = [
    "12345",
    "true",
    "1e3",
    "null",
    "~",
    "0x10",
    "- a",
    "a: b",
    "#a",
    "{a",
    "*a",
    "'",
    '"',
    " ",
    "{{ fail }}",
    "é",
    "\t",
    "",
]

# Parts that the schema leaves to Kubernetes, by the path of the value: things that a server takes.
PROBE = {"httpGet": {"path": "/livez", "port": "management"}, "timeoutSeconds": 7}
SECURITY = {"runAsUser": 1000}
PEER = {"namespaceSelector": {"matchLabels": {"a": "b"}}}
RESOURCES = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
CONTAINER = {"name": "proxy", "image": "proxy:1", "args": ["true"]}
PASSED_ON: dict[str, list[Any]] = {
    "extraEnv[].valueFrom": [{"fieldRef": {"fieldPath": "metadata.uid"}}],
    "extraEnvFrom[]": [{"configMapRef": {"name": "more"}}, {"prefix": "A_", "secretRef": {"name": "more"}}],
    "database.trial.podSecurityContext": [SECURITY, {}],
    "database.trial.resources": [RESOURCES, {}],
    "migration.resources": [RESOURCES, {}],
    "resources": [RESOURCES, {}],
    "workers.resources": [RESOURCES, {}],
    "autoscaling.metrics[]": [
        {
            "type": "Resource",
            "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}},
        }
    ],
    "autoscaling.behavior": [{"scaleUp": {"stabilizationWindowSeconds": 5}}, {}],
    "ingress.tls[]": [{"secretName": "tls", "hosts": ["a.example"]}],
    "httpRoute.parentRefs[]": [{"name": "public"}],
    "httpRoute.filters[]": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["a"]}}],
    "httpRoute.timeouts": [{"request": "0s"}, {}],
    "networkPolicy.publicFrom[]": [PEER],
    "networkPolicy.monitoringFrom[]": [PEER],
    "networkPolicy.databaseTo[]": [PEER],
    "networkPolicy.extraEgress[]": [{"ports": [{"port": 443}]}],
    "startupProbe": [PROBE, {}],
    "livenessProbe": [PROBE, {}],
    "readinessProbe": [PROBE, {}],
    "strategy": [{"type": "Recreate"}, {"rollingUpdate": {"maxSurge": "25%"}}],
    "podSecurityContext": [SECURITY, {}],
    "containerSecurityContext": [SECURITY, {}],
    "topologySpreadConstraints[]": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}],
    "tolerations[]": [{"operator": "Exists"}, {"key": "a", "value": "true", "tolerationSeconds": 5}],
    "affinity": [{"nodeAffinity": {}}, {}],
    "extraVolumes[]": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts[]": [{"name": "more", "mountPath": "/more"}],
    "extraContainers[]": [CONTAINER],
    "initContainers[]": [CONTAINER | {"name": "first", "restartPolicy": "Always"}],
    "podSpec": [{"dnsPolicy": "Default"}, {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}],
    "extraObjects[]": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}}],
    "global": [{}, {"anything": {"at": ["all"]}}, {"imageRegistry": "mirror.example:5000/all"}],
}


def schema_of_values() -> dict[str, Any]:
    with helm_python.Chart.load(CHART) as chart:
        schema = chart.schema
    assert schema is not None
    return schema


def values() -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy: a few of the keys at each level, with anything that the schema admits."""
    return draw_from(schema_of_values(), "")


def draw_from(schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
    if path in PASSED_ON:
        return st.sampled_from(PASSED_ON[path])
    if "anyOf" in schema:
        return st.one_of(*(draw_from(one, path) for one in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    # Null is what takes a default away: only where it may.
    return st.one_of(*(_of_kind(kind, schema, path) for kind in kinds))


def _of_kind(kind: str, schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer" | "number":
            return numbers(schema, whole=kind == "integer")
        case "string":
            return _text(schema)
        case "array":
            one, fewest = draw_from(schema["items"], path + "[]"), schema.get("minItems", 0)
            return st.lists(one, min_size=fewest, max_size=2, unique_by=repr if schema.get("uniqueItems") else None)
    return _object(schema, path)


def numbers(schema: dict[str, Any], *, whole: bool) -> st.SearchStrategy[Any]:
    """Return what a schema admits; a clone's own settings may be open at an end."""
    low = schema.get("minimum", schema.get("exclusiveMinimum", -LIMIT))
    high = schema.get("maximum", schema.get("exclusiveMaximum", LIMIT))
    open_low, open_high = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
    if whole:
        return st.integers(low + open_low, high - open_high)
    return st.floats(low, high, allow_subnormal=False, exclude_min=open_low, exclude_max=open_high)


def _text(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", 1000)
    if pattern := schema.get("pattern"):
        # Python's `$` would take a line feed, too.
        drawn = st.from_regex(pattern.removeprefix("^").removesuffix("$"), fullmatch=True)
    else:
        drawn = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_categories=["Cs"])))
    return drawn.filter(lambda text: low <= len(text) <= high)


def _object(schema: dict[str, Any], path: str) -> st.SearchStrategy[dict[str, Any]]:
    if properties := schema.get("properties"):
        inner = {key: draw_from(one, f"{path}.{key}".lstrip(".")) for key, one in properties.items()}
        needed = schema.get("required", []) if path.endswith("[]") else []  # elsewhere a default stands behind it
        return st.fixed_dictionaries(
            {key: inner[key] for key in needed}, optional={key: one for key, one in inner.items() if key not in needed}
        )
    assert "additionalProperties" in schema, f"{path} is left to Kubernetes: PASSED_ON needs an example"
    if schema["additionalProperties"] is False:
        return st.just({})
    keys = _text(schema.get("propertyNames", {}))
    return st.dictionaries(keys, draw_from(schema["additionalProperties"], path + ".*"), max_size=2)
