"""Programs on copies of the repository, beside the suite that runs them."""

from pathlib import Path

from service.platform.testing.copies import ROOT, copy_repository, git, run_in


def test_no_two_runs_of_pytest_tidy_up_the_same_directory() -> None:
    ask = ("python", "-c", "import os; print(os.environ['PYTEST_DEBUG_TEMPROOT'])")

    assert len({run_in(ROOT, *ask).stdout for _ in range(2)}) == 2


def test_a_copy_is_committed_to_itself_where_a_hook_of_git_runs_the_tests(tmp_path: Path) -> None:
    """A hook has GIT_DIR: the copy went as a commit onto the branch of whoever had begun to push."""
    yours, copy = tmp_path / "yours", tmp_path / "copy"
    for folder in (yours, copy):
        folder.mkdir()
    git(yours, "init", "--quiet")
    script = (
        "import sys; from pathlib import Path; from service.platform.testing.copies import commit, git; "
        "git(Path(sys.argv[1]), 'init', '--quiet'); commit(Path(sys.argv[1]))"
    )
    index = str(yours / ".git" / "index")
    done = run_in(ROOT, "python", "-c", script, str(copy), GIT_DIR=str(yours / ".git"), GIT_INDEX_FILE=index)

    assert done.returncode == 0, done.stderr
    assert git(yours, "rev-list", "--all", "--count") == "0\n"
    assert git(copy, "rev-list", "--all", "--count") == "1\n"


def test_hooks_and_signing_of_whoever_runs_the_tests_are_not_the_copies(tmp_path: Path) -> None:
    hook = tmp_path / "hooks" / "pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    yours = tmp_path / "gitconfig"
    yours.write_text(f"[core]\nhooksPath = {hook.parent}\n[commit]\ngpgSign = true\n[user]\nsigningKey = none\n")
    (copy := tmp_path / "copy").mkdir()
    script = (
        "import sys; from pathlib import Path; from service.platform.testing.copies import commit, git; "
        "git(Path(sys.argv[1]), 'init', '--quiet'); commit(Path(sys.argv[1]))"
    )
    done = run_in(ROOT, "python", "-c", script, str(copy), GIT_CONFIG_GLOBAL=str(yours))

    assert done.returncode == 0, done.stderr


def test_git_packs_no_copy_in_the_background(tmp_path: Path) -> None:
    """Git 2.55 starts it at a commit of so many files, and what copied the copy meanwhile found files gone."""
    copy, trace = copy_repository(tmp_path / "copy"), tmp_path / "trace"
    script = (
        "import sys; from pathlib import Path; from service.platform.testing.copies import commit; "
        "commit(Path(sys.argv[1]))"
    )
    done = run_in(ROOT, "python", "-c", script, str(copy), GIT_TRACE=str(trace))

    assert done.returncode == 0, done.stderr
    assert "built-in: git commit" in trace.read_text()
    assert "maintenance" not in trace.read_text()


def test_bytecode_that_is_elsewhere_stays_there(tmp_path: Path) -> None:
    """PYTHONPYCACHEPREFIX makes its paths whole ones: each file would have been copied to where it is."""
    script = (
        "import sys; from pathlib import Path; from service.platform.testing.copies import copy_repository; "
        "copy_repository(Path(sys.argv[1]))"
    )
    elsewhere = str(tmp_path / "bytecode")
    done = run_in(ROOT, "python", "-c", script, str(tmp_path / "copy"), PYTHONPYCACHEPREFIX=elsewhere)

    assert done.returncode == 0, done.stderr
