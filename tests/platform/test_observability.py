"""Dashboards, alerts and the runbook name only what exists."""

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from service.features import FEATURES
from service.platform.errors import ServiceError
from service.platform.feature import Feature
from service.platform.identity.caller import Flaw
from service.platform.identity.keys import AWAY
from service.platform.testing.booting import booted
from service.platform.testing.copies import commit, copy_repository, run_in
from service.platform.testing.fixtures import MakeSettings
from tests.platform.features import PLAIN, open_plain
from tests.platform.jobs.kinds import note

ROOT = Path(__file__).parents[2]
OF_A_TEST = "made_by_a_test"  # a folder's name that no clone has
# The platform's, and each feature's.
FOLDERS = [ROOT / "deploy" / "observability", *sorted(ROOT.glob("service/*/observability"))]
# What stands between metrics in PromQL, and the labels that Prometheus itself adds. What is called is left out anyway.
LANGUAGE = {
    "and", "atan2", "bool", "group_left", "group_right", "ignoring", "instance", "job", "namespace", "offset", "on",
    "or", "unless", "__rate_interval",
}  # fmt: skip


def groups_of(folder: Path) -> list[dict[str, Any]]:
    """Return the groups of rules of a folder, which may have a dashboard alone, or a file that is still empty."""
    file = folder / "rules.yaml"
    return ((yaml.safe_load(file.read_text()) if file.exists() else None) or {}).get("groups") or []


def rules_of(folder: Path) -> list[dict[str, Any]]:
    return [rule for group in groups_of(folder) for rule in group["rules"]]


def recorded(rules: list[dict[str, Any]]) -> set[str]:
    return {rule["record"] for rule in rules if "record" in rule}


RULES = [rule for folder in FOLDERS for rule in rules_of(folder)]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARDS: list[dict[str, Any]] = [
    json.loads(file.read_text()) for folder in FOLDERS for file in folder.glob("dashboard.json")
]
WITH_RULES = [folder for folder in FOLDERS if rules_of(folder)]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    for panel in (panel for dashboard in DASHBOARDS for panel in dashboard["panels"]):
        yield from (target["expr"] for target in panel.get("targets", []))


def words(expression: str) -> set[str]:
    """Return the names in an expression: metrics and labels, without their values."""
    bare = re.sub(r'("|\').*?\1|\[[^]]*\]|\b\d[\w.]*|\$\w+', " ", expression)
    return set(re.findall(r"\b[a-z_][\w:]*\b(?!\s*(?:\(|by\b|without\b))", bare)) - LANGUAGE


def labels_in(source: str) -> set[str]:
    """Return the labels that gauges and counters are declared with: those of what has not happened yet have no line."""
    return set(re.findall(r'\blabel="(\w+)"', source))


async def test_every_metric_that_is_named_exists_with_its_labels(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [*FEATURES, PLAIN]) as urls, httpx2.AsyncClient() as client:
        await client.get(urls.public + "/plain")
        text = (await client.get(urls.management + "/metrics")).text

    declared = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    known = declared | {f"{name}_{kind}" for name in declared for kind in ("bucket", "count", "sum", "total")}
    known |= set(re.findall(r'[{,](\w+)="', text))
    known |= {label for path in (ROOT / "service").rglob("*.py") for label in labels_in(path.read_text())}
    assert {word for expression in expressions() for word in words(expression)} - known - recorded(RULES) == set()


async def test_what_an_alert_counts_is_there_before_the_first_time(make_settings: MakeSettings) -> None:
    """A series that begins at 1 is no increase to Prometheus; and who counts may be ended before there is a second."""
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    working = Feature("working", open=open_plain, jobs=(note,))
    async with booted(settings, [*FEATURES, working]) as urls, httpx2.AsyncClient() as client:
        text = (await client.get(urls.management + "/metrics")).text

    counted = {name for rule in RULES for name in re.findall(r"increase\((\w+)", rule["expr"])}
    assert counted - set(re.findall(r"^(\w+)", text, re.MULTILINE)) == set()
    assert 'jobs_rescued_total{kind="note"} 0.0' in text
    assert 'server_refused_total{reason="full house"} 0.0' in text
    assert 'server_dropped_total{reason="descriptors"} 0.0' in text


def kinds(of: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


def test_every_reason_for_a_refusal_is_in_the_runbook() -> None:
    """The classes' own, and those that are given where somebody is refused (tests/platform/http/test_reasons.py)."""
    given = {"busy", "full house", "full house of address", "idempotency", AWAY, "leaving", "route busy", "route rate"}
    own = {kind.reason for kind in kinds() if kind.__module__.startswith("service.platform.")}

    assert given | own <= section_words("Clients are refused")


def test_every_flaw_of_a_token_is_in_the_runbook() -> None:
    assert {str(flaw) for flaw in Flaw} <= section_words("Tokens are refused")


def section_words(heading: str) -> set[str]:
    """Return what is set as code in a section of the runbook."""
    text = (ROOT / "deploy" / "runbook.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`([a-z -]+)`", text))


def test_a_name_that_does_not_exist_is_found() -> None:
    assert words('sum by (kind) (rate(no_such_total{kind=~"a b"}[5m])) > 0.5') == {"kind", "no_such_total"}


def test_a_label_is_known_before_anything_has_it() -> None:
    source = (ROOT / "service" / "platform" / "inside" / "readings.py").read_text()

    assert {"code", "kind", "reason"} <= labels_in(source)


def test_what_is_called_and_what_rules_record_are_no_metrics(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("""
groups:
  - name: one
    rules:
      - record: plain:size:max
        expr: max by (zone) (plain_size)
  - name: two
    rules:
      - alert: Grows
        expr: >
          avg without (zone) (plain:size:max) > bool 2 atan2 topk (1, plain_size{zone='a'})
          and on () group_left vector(time())
""")
    rules = rules_of(tmp_path)

    assert [words(rule["expr"]) for rule in rules] == [{"zone", "plain_size"}, {"zone", "plain:size:max", "plain_size"}]
    assert recorded(rules) == {"plain:size:max"}


def test_every_alert_has_its_section_in_a_runbook() -> None:
    for rule in ALERTS:
        path, _, section = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^## (.+)$", (ROOT / path).read_text(), re.MULTILINE)
        assert section in {heading.lower().replace(",", "").replace(" ", "-") for heading in headings}, rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]


@pytest.mark.parametrize("folder", WITH_RULES, ids=lambda folder: folder.parent.name)
def test_every_alert_is_tried_both_ways(folder: Path) -> None:
    """An alert that is never seen to be quiet says so with `# fires only` in its test's first line."""
    assert (folder / "rules-test.yaml").exists(), f"{folder}: each alert is tried in rules-test.yaml, beside rules.yaml"
    document = (folder / "rules-test.yaml").read_text()
    fires_only = set(re.findall(r"alertname: (\w+) +# fires only", document))
    tried: dict[str, set[bool]] = {}
    for case in yaml.safe_load(document)["tests"]:
        for expected in case["alert_rule_test"]:
            tried.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))

    assert tried.keys() == {rule["alert"] for rule in rules_of(folder) if "alert" in rule}
    assert {name for name, ways in tried.items() if ways != {True, False}} == fires_only
    assert all(True in ways for ways in tried.values())


def test_the_chart_has_them_all() -> None:
    made = runpy.run_path(str(ROOT / "deploy" / "generate.py"))["observability"]()
    there = {path: path.read_text() for path in (ROOT / "helm" / "observability").iterdir()}

    assert there == made, "run: make generate"
    groups = yaml.safe_load(made[ROOT / "helm" / "observability" / "rules.yaml"])["groups"] or []
    assert groups == [group for folder in FOLDERS for group in groups_of(folder)]


def test_a_file_of_alerts_may_be_indented_otherwise(tmp_path: Path) -> None:
    """Prometheus reads it. With the others it made a file that nothing reads, and the chart took it without a word."""
    copy = copy_repository(tmp_path / "clone")
    for feature, text in {
        f"{OF_A_TEST}_one": "groups: # ours\n# first\n- name: one\n  rules:\n\n  - {record: a, expr: b}",
        f"{OF_A_TEST}_two": "groups:\n    - name: two\n      rules:\n      - record: a\n        expr: |\n         b\n",
        f"{OF_A_TEST}_zero": "# none\n",
    }.items():
        own = copy / "service" / feature / "observability"
        own.mkdir(parents=True)
        (own / "rules.yaml").write_text(text)
    made = run_in(copy, "python", "deploy/generate.py")

    assert (made.returncode, made.stderr) == (0, "")
    groups = yaml.safe_load((copy / "helm" / "observability" / "rules.yaml").read_text())["groups"]
    assert [group["rules"] for group in groups if group["name"] in {"one", "two"}] == [
        [{"record": "a", "expr": "b"}],
        [{"record": "a", "expr": "b\n"}],
    ]
    assert groups[0]["name"] == yaml.safe_load((FOLDERS[0] / "rules.yaml").read_text())["groups"][0]["name"]


def test_what_is_not_made_goes_only_where_git_could_bring_it_back(tmp_path: Path) -> None:
    """As the dashboard of a feature that is no more; yours, which nobody has committed, stays and is told."""
    copy = copy_repository(tmp_path / "clone")
    charts = copy / "helm" / "observability"
    (charts / "dashboard-gone.json").write_text("{}")
    commit(copy)
    (charts / "dashboard-yours.json").write_text("{}")
    (charts / "notes").mkdir()
    made = run_in(copy, "python", "deploy/generate.py")

    assert (made.returncode, made.stderr) == (0, "")
    assert not (charts / "dashboard-gone.json").exists()
    assert (charts / "dashboard-yours.json").exists()
    assert [line.split()[0] for line in made.stdout.splitlines()] == [
        "helm/observability/dashboard-yours.json",
        "helm/observability/notes",
    ]


@pytest.mark.parametrize("alerts", [None, "", "groups: []\n"], ids=["no file", "an empty file", "no groups"])
def test_a_feature_may_have_a_dashboard_without_alerts(alerts: str | None, tmp_path: Path) -> None:
    """Alerts without a dashboard has the feature of docs/add-a-feature.md."""
    copy = copy_repository(tmp_path / "clone")
    own = copy / "service" / OF_A_TEST / "observability"
    own.mkdir(parents=True)
    shutil.copy(copy / "deploy" / "observability" / "dashboard.json", own)
    if alerts is not None:
        (own / "rules.yaml").write_text(alerts)
    made = run_in(copy, "python", "deploy/generate.py")
    tried = run_in(copy, "python", "-m", "pytest", "-q", "-k", "chart or tried", "tests/platform/test_observability.py")

    assert (made.returncode, made.stderr) == (0, "")
    assert (copy / "helm" / "observability" / f"dashboard-{OF_A_TEST}.json").exists()
    assert not (copy / "helm" / "observability" / "rules.yaml").read_text().endswith("\n\n")
    assert tried.returncode == 0, tried.stdout


@pytest.mark.parametrize("folder", WITH_RULES, ids=lambda folder: folder.parent.name)
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, from Debian's package prometheus")
@pytest.mark.parametrize("command", [("check", "rules", "rules.yaml"), ("test", "rules", "rules-test.yaml")], ids=str)
def test_prometheus_agrees(command: tuple[str, ...], folder: Path) -> None:
    done = subprocess.run(["promtool", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
