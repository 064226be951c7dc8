"""The trial of a release: it says first what it lacks; told to stop, it takes away what it made, and ends what runs."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from service.platform.name import NAME
from tests.helm.charts import ROOT

# Where a cluster and Helm are missing: they say what they were asked for; a forward is one until it is killed.
PLANTED = """#!/bin/sh
echo "$(basename "$0") $*" >&2
case "$*" in *port-forward*) exec sleep 600 ;; esac
"""


@pytest.mark.parametrize(("script", "first"), [("kind", "docker"), ("trial", "kubectl")])
def test_a_tool_that_is_missing_is_one_sentence_before_anything_is_made(
    script: str, first: str, tmp_path: Path
) -> None:
    for name in ("sh", "dirname", "sed", "head", "git"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        ["sh", f"deploy/{script}.sh", "example/shop:1", "example/shop:2"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"needs {first}, which is not here" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_a_trial_that_is_told_to_stop_takes_its_namespace_away(tmp_path: Path, signum: signal.Signals) -> None:
    for name in ("kubectl", "helm"):
        (tmp_path / name).write_text(PLANTED)
        (tmp_path / name).chmod(0o755)
    trial = subprocess.Popen(
        ["env", "--default-signal=HUP", "sh", "deploy/trial.sh", "example/shop:1", "example/shop:2"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert trial.stderr
        assert any("port-forward" in line for line in trial.stderr)
        os.killpg(trial.pid, signum)  # as a terminal does
        said = trial.communicate(timeout=30)[1]  # to its end: whoever still runs holds it open

        assert trial.returncode == 128 + signum
        assert f"kubectl delete namespace {NAME}-trial" in said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trial.pid, signal.SIGKILL)


def test_what_a_trial_has_begun_ends_with_it_also_at_a_signal_in_that_moment(tmp_path: Path) -> None:
    """Ahead of its number's being known: it stayed, and a port with it."""
    for name in ("kubectl", "helm"):
        (tmp_path / name).write_text(PLANTED.replace("exec sleep", ">begun; exec sleep"))
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "deploy" / "trial.sh"
    script.parent.mkdir()
    begun = f" port-forward service/demo-{NAME} 18000:80 >/dev/null &\n"
    text = (ROOT / "deploy" / "trial.sh").read_text()
    is_there = "until [ -e begun ]; do sleep 0.01; done"
    assert begun in text
    script.write_text(text.replace(begun, f"{begun}{is_there}\nkill -INT $$\n"))
    done = subprocess.run(
        ["sh", script, "example/shop:1", "example/shop:2"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )  # to its end: whoever still runs holds it open

    assert done.returncode == 128 + signal.SIGINT
    assert f"kubectl delete namespace {NAME}-trial" in done.stderr
