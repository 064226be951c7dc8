"""What the commands of a clone's life share: the lock file, and how they end."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from service.platform.testing.copies import ROOT, copy_repository, git, run_in
from service.platform.testing.copies import UV as REAL_UV

# A uv that refuses what it refuses on a machine that has installed from a lock file alone: uv asks for more then.
UV = """#!/bin/sh
case "$*" in --version) exit 0 ;; esac
echo "$*" >>"$SAID"
case "$*" in *--offline*) exit 1 ;; esac
exit "$ONLINE"
"""


# One that makes no environment where it is to, but only looks at the lock file, as it would before.
CHECKING_UV = """#!/bin/sh
[ "$1" != sync ] || {{
    mkdir -p .venv/bin && ln -sf {python} .venv/bin/python
    exec {uv} lock --check --quiet --offline --python {python}
}}
exec {uv} "$@"
"""


@pytest.mark.parametrize(("online", "told"), [("0", ""), ("1", "failed; mend this and run it again")])
def test_it_asks_the_package_index_where_what_is_here_does_not_do(tmp_path: Path, online: str, told: str) -> None:
    uv, said = tmp_path / "uv", tmp_path / "said"
    uv.write_text(UV)
    uv.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run_in(
        ROOT, "python", "-c", "from deploy.clone import lock; lock()", PATH=path, SAID=str(said), ONLINE=online
    )

    calls = said.read_text().splitlines()
    assert (["--offline" in call for call in calls], done.stderr) == ([True, False], "")
    assert told in done.stdout if told else done.stdout == ""


@pytest.mark.parametrize(("version", "left"), [("0.8.24", ""), ("0.9.30", ""), ("0.11.9", ""), ("0.12.0", "false")])
def test_uv_is_told_only_what_it_knows_of_a_user_s_own_wishes(tmp_path: Path, version: str, left: str) -> None:
    """One before 0.12 takes it for a date that cannot be read; one before 0.9 then no more says that it is too old."""
    uv, said = tmp_path / "uv", tmp_path / "said"
    uv.write_text(f"""#!/bin/sh
[ "$1" = --version ] && echo "uv {version} (x86_64)" || echo "${{UV_EXCLUDE_NEWER-}}" >"$SAID"
""")
    uv.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    run_in(ROOT, "python", "-c", "from deploy.clone import lock; lock()", PATH=path, SAID=str(said))

    assert said.read_text() == f"{left}\n"


@pytest.mark.ci
@pytest.mark.skipif(not Path(REAL_UV).exists(), reason="needs uv")
@pytest.mark.parametrize("way", ["file", "environment"])
def test_what_a_user_wants_of_what_he_resolves_himself_is_not_wanted_of_the_lock_file(tmp_path: Path, way: str) -> None:
    """As no package of the last week: uv took what was made without for out of date, and would write it into it."""
    copy = copy_repository(tmp_path / "clone")
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text('exclude-newer = "7 days"\n' if way == "file" else "")
    wants = {} if way == "file" else {"UV_EXCLUDE_NEWER": "2026-01-01", "UV_RESOLUTION": "lowest-direct"}
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(CHECKING_UV.format(uv=REAL_UV, python=sys.executable))
    uv.chmod(0o755)
    wants |= {"XDG_CONFIG_HOME": str(tmp_path), "PATH": os.pathsep.join((str(uv.parent), os.environ["PATH"]))}
    before = [f"{name}={value}" for name, value in wants.items()]
    made = run_in(copy, "/usr/bin/env", *before, "sh", "deploy/setup.sh")
    locking = "from deploy.clone import lock; lock()"
    locked = run_in(copy, "/usr/bin/env", *before, sys.executable, "-c", locking)

    assert made.returncode == 0, made.stderr
    assert (locked.stdout, locked.stderr, git(copy, "status", "--porcelain")) == ("", "", "")


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_and_the_like_are_a_sentence_that_says_where_to_look(end: str) -> None:
    """And an exception on the way: what is half made is taken back."""
    work = f"lambda: os.kill(os.getpid(), signal.{end})"
    heard = "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # which a suite under nohup ignores
    code = f"import os, signal; {heard}; from deploy.clone import command; command({work})"
    done = run_in(ROOT, "python", "-c", code)

    assert (done.returncode, done.stderr) == (1, "interrupted: `git status` says what was changed until then\n")


def test_ctrl_c_is_a_sentence_also_where_another_error_is_made_of_it() -> None:
    """As pydantic does while it is imported."""
    code = """
import os, signal
from deploy.clone import command
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt as error:
        raise ValueError("no validator") from error
command(work)
"""
    done = run_in(ROOT, "python", "-c", code)

    assert (done.returncode, done.stderr) == (1, "interrupted: `git status` says what was changed until then\n")


def test_what_cannot_be_written_is_a_sentence_and_keeps_what_was_there(tmp_path: Path) -> None:
    """As on a full disk: an edit that is not committed is nowhere else."""
    edited = tmp_path / "edited"
    edited.write_text("mine\n")
    code = f"""
import resource
from pathlib import Path
from deploy.clone import command, rewrite
def work():
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))
    rewrite(Path({str(edited)!r}), "of another length\\n")
command(work)
"""
    done = run_in(ROOT, "python", "-c", code)

    told = "[Errno 27] File too large: `git status` says what was changed until then\n"
    assert (done.returncode, done.stderr) == (1, told)
    assert (edited.read_text(), [path.name for path in tmp_path.iterdir()]) == ("mine\n", ["edited"])


def test_a_command_asks_git_about_its_own_clone_where_a_hook_names_another(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    work = "lambda: print(run('git', 'rev-parse', '--absolute-git-dir'))"
    script = f"from deploy.clone import command, run; command({work}, changes=False)"
    done = run_in(ROOT, "python", "-c", script, GIT_DIR=str(tmp_path / ".git"), GIT_WORK_TREE=str(tmp_path))

    assert done.stdout.strip() == git(ROOT, "rev-parse", "--absolute-git-dir").strip()


@pytest.mark.parametrize(
    ("goes", "told"),
    [
        (">/dev/full", ["done, but the output cannot be written: No space left on device", "1"]),
        ("<&- >&-", ["0"]),
    ],
)
def test_what_cannot_be_said_ends_no_command_half_way(goes: str, told: list[str]) -> None:
    work = "lambda: (say('one'), say('two'), sys.stdin.isatty(), print('worked', file=sys.stderr))"
    script = f"import sys; from deploy.clone import command, say; command({work}, changes=False)"
    words = ["sh", "-c", f'"$0" -c "$1" {goes}; echo $? >&2', sys.executable, script]
    done = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)

    assert done.stderr.splitlines() == ["worked", *told]


def test_a_reader_that_has_left_ends_no_command_half_way() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    work = "lambda: (say('one'), say('two'), print('worked', file=sys.stderr))"
    script = f"import sys; from deploy.clone import command, say; command({work}, changes=False)"
    words = [sys.executable, "-c", script]
    with os.fdopen(writes, "wb") as nobody_s:
        done = subprocess.run(words, cwd=ROOT, stdout=nobody_s, stderr=subprocess.PIPE, text=True, check=False)

    told = ["worked", "done, but the output cannot be written: Broken pipe"]
    assert (done.returncode, done.stderr.splitlines()) == (1, told)


@pytest.mark.parametrize(("typed", "heard"), [(b"\x04", ""), (b" mine \n", "mine")])
def test_the_end_of_what_is_typed_is_no_answer(typed: bytes, heard: str) -> None:
    ours, theirs = pty.openpty()
    work = "lambda: print(repr(answer('Which? ')), file=sys.stderr)"
    script = f"import sys; from deploy.clone import answer, command; command({work}, changes=False)"
    os.write(ours, typed)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
    )
    os.close(ours)
    os.close(theirs)

    assert (done.returncode, done.stderr) == (0, f"{heard!r}\n")


def test_a_file_s_name_that_is_no_text_ends_no_command() -> None:
    work = "lambda: say(run('printf', r'caf\\351'))"
    script = f"from deploy.clone import command, run, say; command({work}, changes=False)"
    done = run_in(ROOT, "python", "-c", script)

    assert (done.stdout, done.stderr) == ("caf\\udce9\n", "")


def test_no_migration_is_left_of_what_is_interrupted_after_it_was_written(tmp_path: Path) -> None:
    alembic, ready = tmp_path / "alembic", tmp_path / "ready"
    alembic.write_text(f"#!/bin/sh\n: >{tmp_path}/new.py\n: >{ready}\nkill -INT $PPID\nsleep 10\n")
    alembic.chmod(0o755)
    (tmp_path / "old.py").touch()
    script = (
        "import signal; from pathlib import Path; from deploy import migration; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"migration.BIN = migration.VERSIONS = Path({str(tmp_path)!r}); migration.let_alembic_write('merge')"
    )
    done = run_in(ROOT, "python", "-c", script)

    assert "KeyboardInterrupt" in done.stderr
    assert ready.exists()
    assert [path.name for path in tmp_path.glob("*.py")] == ["old.py"]
