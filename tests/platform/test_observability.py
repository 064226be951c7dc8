"""Dashboards, alerts and the runbook name only what exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from service.features import FEATURES
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from tests.platform.features import PLAIN

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observability"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"][0]["rules"]
DASHBOARDS: list[dict[str, Any]] = [json.loads(path.read_text()) for path in FOLDER.glob("dashboard*.json")]
# Words of PromQL and the labels that Prometheus itself adds.
LANGUAGE = {
    "and", "by", "histogram_quantile", "ignoring", "increase", "instance", "job", "max", "min", "namespace", "offset",
    "on", "or", "rate", "sum", "__rate_interval",
}  # fmt: skip


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    for panel in (panel for dashboard in DASHBOARDS for panel in dashboard["panels"]):
        yield from (target["expr"] for target in panel.get("targets", []))


def words(expression: str) -> set[str]:
    """Return the names in an expression: metrics and labels, without their values."""
    bare = re.sub(r'"[^"]*"|\[[^]]*\]|\b\d[\w.]*|\$\w+', " ", expression)
    return set(re.findall(r"[a-z_]\w*", bare)) - LANGUAGE


async def test_every_metric_that_is_named_exists_with_its_labels(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [*FEATURES, PLAIN]) as urls, httpx2.AsyncClient() as client:
        await client.get(urls.public + "/plain")
        text = (await client.get(urls.management + "/metrics")).text

    declared = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    known = declared | {f"{name}_{kind}" for name in declared for kind in ("bucket", "count", "sum", "total")}
    known |= set(re.findall(r'[{,](\w+)="', text))
    known |= {"kind", "reason", "code"}  # of what has not happened yet: compared with the code below
    source = (ROOT / "service" / "platform" / "inside" / "readings.py").read_text()
    assert all(f'label="{label}"' in source for label in ("kind", "reason", "code"))
    assert {word for expression in expressions() for word in words(expression)} - known == set()


def test_a_name_that_does_not_exist_is_found() -> None:
    assert words('sum by (kind) (rate(no_such_total{kind=~"a b"}[5m])) > 0.5') == {"kind", "no_such_total"}


def test_every_alert_has_its_section_in_the_runbook() -> None:
    runbook = (ROOT / "deploy" / "runbook.md").read_text()
    sections = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", runbook, re.MULTILINE)}
    for rule in RULES:
        path, _, section = rule["annotations"]["runbook"].partition("#")
        assert path == "deploy/runbook.md"
        assert section in sections, rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]


def test_every_alert_is_tried_both_ways() -> None:
    tried: dict[str, set[bool]] = {}
    for case in yaml.safe_load((FOLDER / "rules-test.yaml").read_text())["tests"]:
        for expected in case["alert_rule_test"]:
            tried.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))

    fires_only = {  # beside a quiet series
        "TriremeDatabaseDoesNotCancel",
        "TriremeEventLoopHeld",
        "TriremeChatSlow",  # sample
    }
    assert tried.keys() == {rule["alert"] for rule in RULES}
    assert {name for name, ways in tried.items() if ways != {True, False}} <= fires_only
    assert all(True in ways for ways in tried.values())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, from Debian's package prometheus")
@pytest.mark.parametrize("command", [("check", "rules", "rules.yaml"), ("test", "rules", "rules-test.yaml")], ids=str)
def test_prometheus_agrees(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
