"""`deploy/setup.sh`, which every target of the Makefile begins with; and what else the Makefile says twice."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import pytest

from service.platform.testing.copies import ROOT, SIDE_BY_SIDE, git

LARGE = 8 << 20  # bytes of a uv; no file that pip itself writes has half as many


def set_up(tmp_path: Path, *arguments: str, **environment: str) -> list[str]:
    """Run the script in a place of its own, with a uv that only says how it was called; return its lines."""
    made = "mkdir -p .venv/bin; cp python .venv/bin"
    for path, says in (("uv", f'printf "%s\\n" "$@"; env; {made}'), ("python", "exit 0")):
        program = tmp_path / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{says}\n")
        program.chmod(0o755)
    (tmp_path / "deploy").mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "setup.sh", tmp_path / "deploy")
    done = subprocess.run(
        ["sh", "deploy/setup.sh", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def set_up_where_there_is_little(tmp_path: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up in a folder that has these programs, by their paths, and almost none on its PATH besides."""
    for folder in ("deploy", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "deploy" / "setup.sh", tmp_path / "deploy")
    for name in ("dirname", "mkdir"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    for name, says in programs.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{says}\n")
        program.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", "deploy/setup.sh"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_another_target_has_installed_stays(tmp_path: Path) -> None:
    """`make run` beside `make test` would otherwise take pytest away from it."""
    said = set_up(tmp_path, "--group", "embedded")

    assert {"sync", "--locked", "--inexact", "embedded"} <= set(said)


def test_another_project_s_environment_is_left_alone(tmp_path: Path) -> None:
    names = ("VIRTUAL_ENV", "UV_PROJECT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY")
    others = dict.fromkeys(names, str(tmp_path / "gone"))
    said = set_up(tmp_path, **others, UV_PROJECT_ENVIRONMENT=str(tmp_path / "other"))

    assert "UV_PROJECT_ENVIRONMENT=.venv" in said
    assert not [line for line in said if line.partition("=")[0] in others]


def test_another_python_s_variables_are_left_alone(tmp_path: Path) -> None:
    """With the first no Python starts, and with the last none ends: none was new enough."""
    names = ("PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONINSPECT")
    said = set_up(tmp_path, **dict.fromkeys(names, str(tmp_path / "elsewhere")))

    assert not [line for line in said if line.partition("=")[0] in names]


def test_no_target_is_led_astray_by_another_python_s_variables(tmp_path: Path) -> None:
    """A package on PYTHONPATH goes before ours; without assertions no test runs; and a text is no ASCII."""
    names = ("PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONUTF8", "PYTHONOPTIMIZE", "PYTHONINSPECT")
    for name, says in ((".venv/bin/python", "env"), ("deploy/setup.sh", "env")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    words = ["make", "--no-print-directory", "feature", "NAME=orders"]
    environment = os.environ | dict.fromkeys(names, "0")
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.count("\nNAME=orders\n") == 2
    assert [line for line in done.stdout.splitlines() if line.partition("=")[0] in names] == []


@pytest.mark.skipif(not shutil.which("flock"), reason="macOS has none, and there it goes without")
def test_of_two_at_once_one_waits(tmp_path: Path) -> None:
    """Each took the other's half made .venv for a broken one, and removed it."""
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    waits = f'echo "at work" >&2; echo "$$" >"{begun}"; read _ <"{go_on}"; mkdir -p .venv/bin; cp python .venv/bin'
    waits = f'[ "$1" = sync ] || exit\n{waits}'
    for name, says in (("uv", waits), ("python", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "setup.sh", tmp_path / "deploy")
    for fifo in (begun, go_on):
        os.mkfifo(fifo)
    path = f"{tmp_path}:{os.environ['PATH']}"

    environment = os.environ | {"PATH": path, "UV_PYTHON": "any"}

    with ExitStack() as scope:

        def start() -> tuple[subprocess.Popen[str], IO[str]]:
            script = ["sh", "deploy/setup.sh"]
            process = scope.enter_context(
                subprocess.Popen(
                    script, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
                )
            )
            scope.callback(end, process)
            assert process.stderr is not None
            return process, process.stderr

        first, _ = start()
        at_work = begun.read_text()
        second, said = start()

        assert said.readline() == "another set-up is at work in this folder: waiting until it has ended\n"
        go_on.write_text("\n")
        assert first.wait(60) == 0
        assert begun.read_text() != at_work
        go_on.write_text("\n")
        assert second.wait(60) == 0


def end(process: subprocess.Popen[str]) -> None:
    """End what was started, and what that has started, where a test failed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_of_the_same_name_elsewhere_is_not_where_it_works(tmp_path: Path) -> None:
    """`cd deploy/..` goes by CDPATH first, where a shell has exported it: .venv was made there."""
    own, other = tmp_path / "own", tmp_path / "other"
    (other / "deploy").mkdir(parents=True)
    own.mkdir()
    set_up(own, CDPATH=str(other))

    assert [path.name for path in other.iterdir()] == ["deploy"]
    assert (own / ".venv" / "made-for").read_text() == f"{own}\n"


def test_every_script_finds_its_folder_in_the_same_way() -> None:
    scripts = [path for path in (*ROOT.glob("deploy/*.sh"), ROOT / ".ci" / "run") if "dirname" in path.read_text()]

    assert scripts
    assert [path for path in scripts if '\nCDPATH=\'\' cd "$(dirname "$0")/.."\n' not in path.read_text()] == []


def test_in_a_folder_that_was_moved_all_programs_are_made_anew(tmp_path: Path) -> None:
    """Each names the Python of the place that it was made for, and uv leaves those that it has installed before."""
    before, after = tmp_path / "before", tmp_path / "mon défi"
    before.mkdir()
    set_up(before)
    (before / ".venv" / "bin" / "alembic").touch()
    set_up(before)
    stays = (before / ".venv" / "bin" / "alembic").exists()
    before.rename(after)
    set_up(after)

    assert stays
    assert not (after / ".venv" / "bin" / "alembic").exists()


def test_in_a_folder_that_was_moved_a_removal_that_was_interrupted_is_gone_on_with(tmp_path: Path) -> None:
    before, after, programs = tmp_path / "before", tmp_path / "after", tmp_path / "programs"
    for folder in (before, programs):
        folder.mkdir()
    set_up(before)
    (before / ".venv" / "bin" / "alembic").touch()
    (before / ".venv" / ".lock").touch()
    before.rename(after)
    killed = programs / "rm"  # it has removed all that it was told to but for one folder, as it was killed in that
    killed.write_text(
        f'#!/bin/sh\nmv .venv/bin bin\n{shutil.which("rm")} "$@"\nmkdir -p .venv; mv bin .venv\nkill -9 $PPID\n'
    )
    killed.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        set_up(after, PATH=f"{programs}:{after}:{os.environ['PATH']}")
    left = (after / ".venv" / "bin" / "alembic").exists()
    set_up(after)

    assert left
    assert not (after / ".venv" / "bin" / "alembic").exists()


def test_an_environment_that_a_folder_links_to_stays_for_the_folder_it_was_copied_from(tmp_path: Path) -> None:
    first, copied, elsewhere = tmp_path / "first", tmp_path / "copied", tmp_path / "elsewhere"
    first.mkdir()
    elsewhere.mkdir()
    (first / ".venv").symlink_to(elsewhere)
    set_up(first)
    (elsewhere / "bin" / "alembic").touch()
    shutil.copytree(first, copied, symlinks=True)
    set_up(copied)

    assert (elsewhere / "bin" / "alembic").exists()
    assert (elsewhere / "made-for").read_text() == f"{first}\n"
    assert not (copied / ".venv").is_symlink()


@pytest.mark.parametrize("home", ["/proc/none", ""])
def test_without_a_home_to_write_to_downloads_stay_here(tmp_path: Path, home: str) -> None:
    said = set_up(tmp_path, HOME=home, UV_CACHE_DIR="", XDG_CACHE_HOME="")
    caches = [line.partition("=")[2] for line in said if line.startswith(("UV_CACHE_DIR=", "HOME="))]

    assert any(cache.startswith(f"{tmp_path}/.uv") for cache in caches), said


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (None, "python3 is missing: install Python 3.9 or later, or uv"),
        ("Python 3.6.8", "python3 is Python 3.6.8: install Python 3.9 or later, or uv"),
        ("", "python3 does not run: install Python 3.9 or later, or uv"),  # pyenv's, of a version that is not there
    ],
)
def test_a_python_that_cannot_get_uv_is_named_before_anything_is_made(
    tmp_path: Path, python: str | None, said: str
) -> None:
    says = f'[ "$1" = --version ] && [ "{python}" ] && echo {python} && exit\nexit 1'
    done = set_up_where_there_is_little(tmp_path, **({} if python is None else {"bin/python3": says}))

    assert (done.returncode, done.stderr) == (1, said + "\n")
    assert not (tmp_path / ".uv").exists()


@pytest.mark.parametrize(("version", "left"), [("0.8.24", []), ("0.9.30", []), ("0.11.9", []), ("0.12.0", ["false"])])
def test_a_uv_is_told_only_what_it_knows_of_a_user_s_own_wishes(tmp_path: Path, version: str, left: list[str]) -> None:
    """One before 0.12 takes it for a date that cannot be read; one before 0.9 then no more says that it is too old."""
    says = f'[ "$1" = sync ] || {{ echo "uv {version} (x86_64)"; exit; }}; echo "${{UV_EXCLUDE_NEWER-}}"; exit 2'
    done = set_up_where_there_is_little(tmp_path, **{"bin/uv": says, "bin/python3": "exit 0"})

    assert (done.returncode, done.stdout.split()) == (2, left), done.stderr


def get_uv(tmp_path: Path, limit: str = "unlimited", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up, of files of a size, where pip finds a uv beside it that says `whole` and ends with 2."""
    for folder in ("deploy", "bin"):
        (tmp_path / folder).mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "setup.sh", tmp_path / "deploy")
    with zipfile.ZipFile(tmp_path / "uv-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        about = "uv-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
        program = zipfile.ZipInfo("uv-1.0.data/scripts/uv")
        program.external_attr, program.compress_type = 0o100755 << 16, zipfile.ZIP_DEFLATED
        wheel.writestr(program, f"#!/bin/sh\necho whole; exit 2\n{'#' * LARGE}")
    for name in ("dirname", "mkdir", "rm", "python3"):
        found = Path(sys.executable).resolve() if name == "python3" else shutil.which(name)
        if not (tmp_path / "bin" / name).exists():
            (tmp_path / "bin" / name).symlink_to(found or "")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    return subprocess.run(
        ["/bin/sh", "-c", f"ulimit -S -f {limit}; exec /bin/sh deploy/setup.sh"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/bin", "HOME": str(tmp_path)} | offline | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_uv_that_was_half_written_is_got_anew(tmp_path: Path) -> None:
    """As on a full disk: pip writes what says that uv is installed before uv itself, and then has nothing to do."""
    kept = tmp_path / ".uv" / "cache" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    full, left = get_uv(tmp_path, str(LARGE // 2 // 512)), (tmp_path / ".uv/bin/uv").exists()
    again = get_uv(tmp_path)

    assert "uv could not be installed" in full.stderr, full.stderr
    assert left
    assert again.stdout == "whole\n", again.stderr
    assert kept.exists()


@pytest.mark.parametrize("name", ["PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"])
def test_uv_comes_into_this_folder_wherever_pip_puts_what_others_install(tmp_path: Path, name: str) -> None:
    given = {"PIP_USER": "1", "PIP_PYTHON": sys.executable}.get(name, str(tmp_path / "elsewhere"))
    done = get_uv(tmp_path, **{name: given})

    assert done.stdout == "whole\n", done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_a_user_s_own_pip_conf_is_got_round_or_named(tmp_path: Path) -> None:
    own = tmp_path / "pip.conf"
    own.write_text("[install]\nuser = true\n")
    user = get_uv(tmp_path, PIP_CONFIG_FILE=str(own))
    shutil.rmtree(tmp_path / ".uv")
    own.write_text(f"[install]\ntarget = {tmp_path / 'elsewhere'}\n")
    target = get_uv(tmp_path, PIP_CONFIG_FILE=str(own))

    assert user.stdout == "whole\n", user.stderr
    assert target.returncode == 1
    assert "pip has put uv elsewhere than into .uv" in target.stderr.splitlines()[-1]


def test_advice_of_uv_s_names_the_uv_that_is_here(tmp_path: Path) -> None:
    """It says to run `uv lock` after a change of pyproject.toml, and there is no such command where we brought uv."""
    programs = {".uv/bin/uv": "echo 'run `uv lock`' >&2; exit 2", "bin/python3": "exit 0"}
    done = set_up_where_there_is_little(tmp_path, **programs)

    assert (done.returncode, done.stderr) == (2, "run `uv lock`\nuv is .uv/bin/uv here\n")


@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_that_cannot_be_written_to_is_one_sentence(moved: bool) -> None:
    """In one that was moved as well, where .venv would be made anew: rm told of each of its files."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are for one user alone
        place = Path(name).resolve()
        (place / "deploy").mkdir()
        (place / ".venv").mkdir()
        (place / ".venv" / "made-for").write_text("/before\n" if moved else f"{place}\n")
        shutil.copy(ROOT / "deploy" / "setup.sh", place / "deploy")
        place.chmod(0o555)
        done = subprocess.run(
            ["sh", "deploy/setup.sh"],
            cwd=place,
            user=os.geteuid() or 65534,  # root may write anywhere
            capture_output=True,
            text=True,
            check=False,
        )
        place.chmod(0o755)

    assert (done.returncode, done.stderr) == (1, f"{place} cannot be written to, and what is made goes into .venv\n")


def test_lines_end_as_a_shell_reads_them_where_git_is_set_up_for_windows(tmp_path: Path) -> None:
    """As in a clone for a container made there: `set: Illegal option -` was all that make said."""
    names = ("Makefile", "deploy/setup.sh", ".ci/run")
    before, after = tmp_path / "before", tmp_path / "after"
    for name in (*names, ".gitattributes"):
        (before / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, before / name)
    as_windows = ["-c", "core.autocrlf=true"]
    git(before, "init", "--quiet")
    git(before, "add", "--all")
    git(before, "-c", "user.name=one", "-c", "user.email=one@example.com", "commit", "--quiet", "--message", "one")
    git(tmp_path, *as_windows, "clone", "--quiet", *as_windows, str(before), str(after))

    assert [name for name in names if b"\r" in (after / name).read_bytes()] == []


def test_the_suite_in_a_copy_runs_as_make_test_does() -> None:
    assert f"SIDE_BY_SIDE := {' '.join(SIDE_BY_SIDE)}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    ("target", "given"),
    [
        ("rename", {"NAME": 'a"; exit 3; "', "HOLDER": 'O"Brien & `exit 3` Söhne'}),
        ("feature", {"NAME": "o'r`exit 3`"}),
        ("migration", {"NAME": 'add"', "BREAKING": 'drops "total"; $(exit 3)'.replace("$", "$$")}),
        ("update", {"TO": 'v"1', "FROM": "https://example.com/a'b", "BASE": "`exit 3`"}),
    ],
)
def test_a_target_hands_on_what_it_is_given_as_it_is(tmp_path: Path, target: str, given: dict[str, str]) -> None:
    """The shell reads none of it: a company's name may have any character."""
    for name, says in ((".venv/bin/python", 'printf "%s\\n" "$@"'), ("deploy/setup.sh", ":"), ("git", "echo no")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    words = ["make", "--no-print-directory", target, *(f"{name}={value}" for name, value in given.items())]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    handed = {re.sub(r"^--[a-z]+=", "", line) for line in done.stdout.splitlines()}
    assert {value.replace("$$", "$") for value in given.values()} <= handed


@pytest.mark.parametrize(
    ("target", "given", "words"),
    [
        ("feature", ["NAME=--help"], ["--", "--help"]),
        ("migration", ["NAME=-x", "BREAKING=-- all"], ["--breaking=-- all", "--", "-x"]),
        ("rename", ["NAME=--shop", "HOLDER=-- Ltd --"], ["--holder=-- Ltd --", "--", "--shop"]),
        ("update", ["TO=-v", "FROM=-f", "BASE=-b"], ["--to=-v", "--from=-f", "--base=-b"]),
    ],
)
def test_what_begins_with_a_hyphen_is_no_option(
    tmp_path: Path, target: str, given: list[str], words: list[str]
) -> None:
    """`make feature NAME=--help` made nothing, and was well."""
    for name, says in ((".venv/bin/python", 'shift; printf "%s\\n" "$@"'), ("deploy/setup.sh", ":")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    command = ["make", "--no-print-directory", target, *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == words, done.stderr


@pytest.mark.parametrize(
    ("target", "switch", "sentence"),
    [
        ("run", "IDENTITY=off", "IDENTITY=off: must be dev, or not be given"),
        ("run", "IDENTITY=dve", "IDENTITY=dve: must be dev, or not be given"),
        ("update", "ABORT=0", "ABORT=0: must be 1, or not be given"),
    ],
)
def test_a_switch_that_says_something_else_is_no_yes(target: str, switch: str, sentence: str) -> None:
    """IDENTITY lets anybody sign in, and ABORT throws a merge away."""
    words = ["make", "--no-print-directory", "--dry-run", target, switch]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        pytest.param("of another user", "git config --global --add safe.directory", id="of another user"),
        pytest.param("", "make test needs git, and a repository here", id="none"),
    ],
)
def test_the_suite_without_git_says_what_is_missing(tmp_path: Path, owner: str, said: str) -> None:
    """In a repository of another user there is one: `git init` is no advice."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    if owner:
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    differ = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    environment = os.environ | differ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    words = ["make", "--no-print-directory", "test"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert said in done.stdout


@pytest.mark.parametrize("codes", [(0, 0, 0), (3, 0, 3), (0, 2, 2)], ids=["neither", "the set-up", "the suite"])
def test_ci_fails_as_its_set_up_or_its_suite_fails(tmp_path: Path, codes: tuple[int, int, int]) -> None:
    """With packages from Debian beside it that cannot be had, which is said and no failure."""
    setup, suite, code = codes
    for name, says in (
        ("deploy/setup.sh", f"exit {setup}"),
        ("make", f'echo "$@"; exit {suite}'),
        ("apt-get", "exit 100"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    path = f"{tmp_path}:{os.environ['PATH']}"
    run = ["bash", ".ci/run"]
    done = subprocess.run(
        run, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )

    assert done.returncode == code
    assert ("test MARKED=not drill" in done.stdout) == (setup == 0)
