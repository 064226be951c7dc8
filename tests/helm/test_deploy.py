"""The image's recipe, the compose file and the balancer: linted, and held against the settings and the chart."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from helm.generate import Value, parse_values
from service.features import FEATURES
from service.platform.database import find_migrations
from service.platform.database.migrate import migrate
from service.platform.name import NAME
from service.platform.settings import PlatformSettings
from service.platform.testing.copies import UV, commit, git
from service.platform.testing.fixtures import HEAD, MakeSettings
from service.platform.verbs import Program
from service.platform.verbs.command_line import command_line, names
from service.settings import Settings
from tests.helm.charts import BIN, CHART, ROOT
from tests.helm.rules_of_pods import SETTINGS, settings_of

DEPLOY = ROOT / "deploy"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    program = str(BIN / command[0])
    return subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_the_dockerfile_is_clean() -> None:
    done = run("hadolint", "--failure-threshold", "style", "Dockerfile")

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "USER 65532:65532",
        'ENTRYPOINT ["service"]',
        'CMD ["serve"]',
        "FROM ${PYTHON_IMAGE} AS build",
        "COPY --from=build /app/.venv .venv",
        "COPY --from=build /app/migrations migrations",
    ],
)
def test_the_dockerfile_says(line: str) -> None:
    assert line in (ROOT / "Dockerfile").read_text().splitlines()


def test_the_image_tells_the_driver_where_the_systems_certificates_are() -> None:
    variables = re.findall(r"^ENV (.*(?:\\\n.*)*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" in variables[-1].split()


def test_the_image_installs_what_is_locked_and_nothing_for_developers() -> None:
    syncs = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if "uv sync" in line]

    assert len(syncs) == 2
    assert all("--locked --no-dev --no-editable" in line and "--group" not in line for line in syncs)


@pytest.fixture
def builder(tmp_path: Path) -> tuple[Path, Path]:
    """Return a clone to build, and a folder with a docker that says what it is told, a line each."""
    told = tmp_path / "bin" / "docker"
    told.parent.mkdir()
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o755)
    (tmp_path / "clone" / "deploy").mkdir(parents=True)
    for name in ("pyproject.toml", "deploy/build-image.sh"):
        shutil.copy(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone", told.parent


def build_with(builder: tuple[Path, Path], **variables: str) -> subprocess.CompletedProcess[str]:
    clone, programs = builder
    own = {"PATH": f"{programs}:{os.environ['PATH']}"}
    command = ("sh", "deploy/build-image.sh")
    return subprocess.run(
        command, cwd=clone, env=own | variables, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_image_says_of_which_commit_it_is_and_whether_it_is_that_commit(builder: tuple[Path, Path]) -> None:
    clone, _ = builder

    def build() -> tuple[str, str]:
        done = build_with(builder, GIT_CEILING_DIRECTORIES=str(clone.parent), LC_ALL="C")
        done.check_returncode()
        [revision] = [line for line in done.stdout.splitlines() if line.startswith("REVISION=")]
        return revision, done.stderr

    none, why = build()
    git(clone, "init", "--quiet")
    commit(clone)
    committed = git(clone, "rev-parse", "HEAD").strip()
    same, _ = build()
    (clone / "pyproject.toml").write_text("# edited\n")
    edited, _ = build()

    assert (none, "not a git repository" in why) == ("REVISION=unknown", True)
    assert (same, edited) == (f"REVISION={committed}", f"REVISION={committed}-dirty")


INDEX = "https://packages.example.org/@team/simple"


def test_the_builder_is_told_of_an_index_and_gets_its_password_as_a_secret(builder: tuple[Path, Path]) -> None:
    plain = build_with(builder).stdout.splitlines()
    own = build_with(builder, UV_DEFAULT_INDEX=INDEX, NETRC="/a b/netrc", SSL_CERT_FILE="/ca.crt").stdout.splitlines()

    assert "--secret" not in plain
    assert own[own.index(f"UV_DEFAULT_INDEX={INDEX}") - 1] == "--build-arg"
    assert [after for word, after in itertools.pairwise(own) if word == "--secret"] == [
        "id=netrc,src=/a b/netrc",
        "id=ca,src=/ca.crt",
    ]


@pytest.mark.parametrize("address", ["https://me:hunter2@packages.example.org/simple", "https://token@packages"])
def test_a_password_in_the_index_s_address_is_not_given_to_the_builder(
    builder: tuple[Path, Path], address: str
) -> None:
    done = build_with(builder, UV_DEFAULT_INDEX=address)

    assert (done.returncode, done.stdout) == (1, "")
    assert "NETRC" in done.stderr
    assert address not in done.stderr


def test_every_step_that_downloads_has_the_index_s_secrets() -> None:
    """Mounted, so that no layer keeps them; where there are none the step goes without."""
    recipe = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line for line in recipe.splitlines() if line.startswith("RUN") and re.search(r"pip install|uv sync", line)]

    assert len(steps) == 3
    for step in steps:
        assert "--mount=type=secret,id=netrc,target=/root/.netrc " in step
        assert "--mount=type=secret,id=ca,target=/run/secrets/ca " in step
        assert "if [ -f /run/secrets/ca ]; then export " in step
    assert recipe.index("ARG UV_DEFAULT_INDEX=") < recipe.index(steps[0])


def test_the_image_s_user_may_read_the_migrations_of_a_clone_made_under_a_strict_umask(tmp_path: Path) -> None:
    [mend] = re.findall(r"^COPY migrations migrations\nRUN (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sent = shutil.copytree(find_migrations(), tmp_path / "migrations")
    for path in sent.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    subprocess.run(["sh", "-ec", mend], cwd=tmp_path, check=True)

    assert {path.stat().st_mode & 0o777 for path in sent.rglob("*")} == {0o755, 0o644}


@pytest.mark.ci  # uv, which a copy lacks, and the package index where its backend is of another version
def test_what_a_feature_reads_is_in_the_image_and_what_people_read_is_not(tmp_path: Path) -> None:
    """Whatever it is called: texts to be sent or shown are often Markdown."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    read = ("service/__init__.py", "service/orders/letters/welcome.md", "service/orders/page/index.html")
    pages = ("README.md", "DECISIONS.md", "runbook.md", "docs/capacity.md")
    secrets = ("service/.env", "service/orders/.env")
    for name in (*read, *secrets, *(f"service/orders/{page}" for page in pages)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    build = [UV, "build", "--quiet", "--wheel", "--python", sys.executable]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=60)
    [wheel] = (tmp_path / "dist").glob("*.whl")

    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    assert {name for name in held if name.startswith("service/")} == set(read)


@pytest.mark.ci  # two environments from the package index
def test_two_builds_make_the_same_environment(tmp_path: Path) -> None:
    """Byte for byte, by the recipe's own commands: what else differs is the base image's and the builder's."""
    recipe = (ROOT / "Dockerfile").read_text()
    [sync] = re.findall(
        r"^COPY service service\nRUN (?:--mount=\S+ \\\n\s*)*(.*?)\n\n", recipe, re.MULTILINE | re.DOTALL
    )
    [told] = re.findall(r"^ENV (PYC_\S+) UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy", recipe, re.MULTILINE)
    for name in ("one", "other"):
        place = tmp_path / name / "app"
        place.mkdir(parents=True)
        for part in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"):
            shutil.copy(ROOT / part, place)
        shutil.copytree(ROOT / "service", place / "service", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.rmtree(tmp_path / "app", ignore_errors=True)
        place.rename(tmp_path / "app")  # a path is in each file of bytecode
        given = {
            "UV_PYTHON": sys.executable,
            "UV_COMPILE_BYTECODE": "1",
            "UV_LINK_MODE": "copy",
            **dict([told.split("=")]),
        }
        script = f'uv() {{ {UV} "$@"; }}\n{sync}'
        subprocess.run(["sh", "-ec", script], cwd=tmp_path / "app", env=os.environ | given, check=True, timeout=300)
        (tmp_path / "app" / ".venv").rename(tmp_path / name / ".venv")

    done = subprocess.run(
        ["diff", "-rq", "one/.venv/lib", "other/.venv/lib"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert list((tmp_path / "one" / ".venv").rglob("*.pyc"))


def test_only_what_the_image_needs_is_sent_to_the_builder() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}

    assert rules[0] == "*"
    assert let_in == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "service", "migrations"}
    assert all((ROOT / name).exists() for name in let_in)
    assert not any(fnmatch(secret, rule) for secret in (".env", ".git", ".data") for rule in let_in)
    assert "**/.env" in rules  # one that lies where the settings are


def test_the_compose_file_keeps_to_the_specification() -> None:
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")

    assert done.returncode == 0, done.stdout


def test_compose_names_settings_that_exist_and_fit(compose: dict[str, Any]) -> None:
    for name in ("migrate", "service"):
        environment = compose["services"][name]["environment"]
        assert environment.keys() <= SETTINGS.keys()
        assert environment["SERVICE_DATABASE_URL"]
        settings_of({"env": [{"name": key, "value": value} for key, value in environment.items()]})


def test_compose_waits_as_long_as_the_drain_may_take(compose: dict[str, Any]) -> None:
    environment = compose["services"]["service"]["environment"]
    told = settings_of({"env": [{"name": key, "value": value} for key, value in environment.items()]})

    assert compose["services"]["service"]["stop_grace_period"] == f"{told.drain_bound:g}s"


def test_compose_locks_the_service_up_as_the_chart_does(compose: dict[str, Any]) -> None:
    for name in ("migrate", "service"):
        service = compose["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["user"] == "65532:65532"
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose["services"]["service"]["deploy"]["replicas"] == 2
    assert "ports" not in compose["services"]["service"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become what the container is")
@pytest.mark.skipif(not shutil.which("haproxy") or not shutil.which("setpriv"), reason="needs haproxy and setpriv")
def test_compose_s_balancer_reads_its_file_in_a_clone_made_under_a_strict_umask(
    compose: dict[str, Any],
) -> None:
    balancer = compose["services"]["balancer"]
    user, _, group = balancer.get("user", "99:99").partition(":")  # the image's own user
    held = [f"+{name.lower()}" for name in balancer.get("cap_add", [])] if balancer.get("cap_drop") == ["ALL"] else []
    become = ["--reuid", user, "--regid", group, "--clear-groups", "--bounding-set", ",".join(["-all", *held])]
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are for one user alone
        Path(name).chmod(0o755)
        file = Path(shutil.copy(DEPLOY / "balancer.cfg", name))
        file.chmod(0o600)
        os.chown(file, 1000, 1000)
        command = ["setpriv", *become, "haproxy", "-c", "-f", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr


def test_compose_runs_the_chart_and_the_images_version(compose: dict[str, Any]) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    trial = yaml.safe_load((CHART / "values.yaml").read_text())["database"]["trial"]

    assert compose["services"]["service"]["image"] == f"{NAME}:{chart['appVersion']}"
    assert compose["services"]["postgres"]["image"] == trial["image"]


def test_the_image_says_where_it_comes_from() -> None:
    labels = set(re.findall(r'org\.opencontainers\.image\.(\w+)="', (ROOT / "Dockerfile").read_text()))

    assert labels == {"title", "description", "licenses", "version", "revision", "source", "url"}


def test_the_balancer_asks_what_the_service_answers() -> None:
    balancer = (DEPLOY / "balancer.cfg").read_text()

    assert "uri /readyz" in balancer
    assert "check port 9000" in balancer
    assert "service:8000" in balancer
    # A replica that is told to go must be out of rotation before it stops to accept.
    assert "inter 1s fall 1" in balancer
    assert PlatformSettings.model_fields["drain_delay"].default > 2


def test_the_next_release_of_the_cluster_test_still_serves_this_one(
    tmp_path: Path, empty_database_url: str, make_settings: MakeSettings
) -> None:
    """What deploy/kind.sh puts into its second image: install, upgrade, and a rollback whose Job has nothing to do."""
    written = re.search(
        r"<<MIGRATION \S+/(\S+)\n(.*?)^MIGRATION$", (DEPLOY / "kind.sh").read_text(), re.MULTILINE | re.DOTALL
    )
    assert written
    settings = make_settings(database_url=SecretStr(empty_database_url))
    following = tmp_path / "migrations"
    shutil.copytree(find_migrations(), following)
    (following / "versions" / written[1]).write_text(written[2].replace("$head", repr(HEAD)))

    told = [migrate(settings, migrations=release).line for release in (find_migrations(), following, find_migrations())]

    first = f"migrated from nothing to {HEAD}" if HEAD else "nothing to do: the schema is at None"
    assert told[:2] == [first, f"migrated from {HEAD or 'nothing'} to 9999_next"]
    assert told[2].startswith("nothing to do: the schema is at 9999_next, newer than this code's")


RUNBOOK = (DEPLOY / "runbook.md").read_text()
SECTIONS = re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_a_section_of_the_runbook_has_a_command_and_what_follows(section: str) -> None:
    before, _, after = section.partition("```sh\n")
    command, _, seen = after.partition("```\n")

    assert before.strip().count("\n") == 0, "a symptom, and at once the command"
    assert command
    assert seen.strip()


def test_the_runbook_names_only_what_exists() -> None:
    verbs = names(command_line(lambda: Program(Settings, FEATURES), []))
    values = {value.path for value in every_value()}

    assert set(re.findall(r"`?service ([a-z]+)(?:`| \||\n)", RUNBOOK)) <= verbs
    assert set(re.findall(r"SERVICE_[A-Z_]+[A-Z]", RUNBOOK)) <= SETTINGS.keys()
    named = re.findall(r"`((?:drain|migration|database|autoscaling|resources|image)\.[A-Za-z.]+)`", RUNBOOK)
    assert len(named) > 4
    assert {name for name in named if not any(name.startswith(path) for path in values)} == set()


def test_the_runbook_greps_for_events_that_are_logged() -> None:
    code = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))

    logged = "\n".join(line for line in RUNBOOK.splitlines() if line.startswith("kubectl logs"))
    for event in re.findall(r"-e '([^']+)'|grep '([^']+)'", logged):
        field, _, name = (event[0] or event[1]).rpartition('": ')  # grep may look for the quotes of the JSON as well
        assert field == '"status' or f'"{name.strip('"')}"' in code


def every_value() -> Iterator[Value]:
    pending = parse_values((CHART / "values.yaml").read_text())
    while pending:
        value = pending.pop()
        pending += value.children
        yield value
