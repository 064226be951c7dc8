"""The workflows: linted offline, pinned, with no more rights than they need."""

import re
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from service.platform.name import NAME
from service.platform.server import TRIED
from tests.helm.charts import BIN, CHART, ROOT, VERSIONS

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
USES = re.compile(r"^\s*(?:- )?uses: (?P<action>\S+)(?P<comment>.*)$", re.MULTILINE)


def load(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return workflow


@pytest.mark.parametrize(
    "command",
    [
        ("actionlint", "-no-color"),
        ("zizmor", "--offline", "--no-progress"),
        ("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
    ],
    ids=lambda command: command[0],
)
def test_workflows_are_clean(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:], *WORKFLOWS], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_pinned_is_kept_up_to_date() -> None:
    """Of packages that are reached into each comes alone."""
    file = ROOT / ".github" / "dependabot.yml"
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.dependabot", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    updates = {update["package-ecosystem"]: update for update in yaml.safe_load(file.read_text())["updates"]}

    assert done.returncode == 0, done.stdout + done.stderr
    assert {"uv", "github-actions", "docker-compose"} <= updates.keys()
    assert set(updates["uv"]["groups"]["python"]["exclude-patterns"]) == set(TRIED)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit_and_says_its_version(path: Path) -> None:
    for use in USES.finditer(path.read_text()):
        if not use["action"].startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", use["action"]), use["action"]
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", use["comment"]), use[0]


def test_one_action_is_pinned_to_one_commit() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for use in USES.finditer(path.read_text()):
            name, _, commit = use["action"].partition("@")
            pins.setdefault(name, set()).add(commit)

    assert {name: commits for name, commits in pins.items() if len(commits) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_rights_are_given_job_by_job(path: Path) -> None:
    workflow = load(path.name)

    assert workflow["permissions"] == {}
    assert all(job["permissions"] for job in workflow["jobs"].values())
    assert all("timeout-minutes" in job for job in workflow["jobs"].values() if "steps" in job)
    writers = [name for name, job in workflow["jobs"].items() if "write" in job["permissions"].values()]
    assert writers == (["publish"] if path.name == "release.yml" else [])


def test_nothing_is_published_that_was_not_tested() -> None:
    jobs = load("release.yml")["jobs"]

    assert jobs["publish"]["needs"] == "test"
    assert jobs["test"]["uses"].endswith("test.yml")


def test_an_image_goes_out_for_both_platforms_with_all_that_says_what_it_is() -> None:
    steps = load("release.yml")["jobs"]["publish"]["steps"]
    [build] = [step for step in steps if "build-push-action" in step.get("uses", "")]
    scripts = "\n".join(step.get("run", "") for step in steps)

    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert (build["with"]["provenance"], build["with"]["sbom"]) == ("mode=max", True)
    assert "rewrite-timestamp=true" in build["with"]["outputs"]
    assert build["env"].keys() == {"SOURCE_DATE_EPOCH"}
    assert scripts.count("cosign sign --yes") == 2  # the image and the chart, each by its digest


def test_clusters_are_of_the_oldest_and_the_newest_version() -> None:
    nodes = load("test.yml")["jobs"]["cluster"]["strategy"]["matrix"]["node"]

    assert [re.sub(r"^kindest/node:v(\d+\.\d+)\.\d+@sha256:[0-9a-f]{64}$", r"\1", node) for node in nodes] == [
        *VERSIONS
    ]


def test_helm_is_the_one_that_the_tests_here_use() -> None:
    jobs = [job for name in ("test.yml", "release.yml") for job in load(name)["jobs"].values()]
    steps = [step for job in jobs for step in job.get("steps", [])]

    assert {step["with"]["version"] for step in steps if "setup-helm" in step.get("uses", "")} == {
        helm_python.helm_sdk_version()
    }


def test_the_release_finds_the_lines_that_it_rewrites() -> None:
    values = (CHART / "values.yaml").read_text().splitlines()

    assert values.count(f"  repository: {NAME}") == 1
    assert values.count('  digest: ""') == 1
    assert values.count('  runbookBase: ""') == 1
    chart = (CHART / "Chart.yaml").read_text()
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"\nversion: {version[1]}\n" in chart
    assert f'\nappVersion: "{version[1]}"\n' in chart
