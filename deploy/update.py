"""Merge a newer version of the template into this clone: .venv/bin/python deploy/update.py [--to TAG] [--from URL]

The way of a vendor branch: the version that the clone came from and the newer one are both given the clone's name and
lose what it removed (deploy/projection.py); both are committed on the branch `template`; and what is between the two is
merged. No history has to be shared, and only what both sides edited can be in conflict. Nothing is committed on the
clone's own branch. `--abort` leaves an update, whole or half.
"""

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy.base import FETCHED, find_base, find_version  # after the path above
from deploy.clone import (
    ROOT,
    Refused,
    Stopped,
    ask,
    attempt,
    command,
    follow_up,
    lock,
    need_clean_clone,
    need_clone,
    project_name,
    run,
    say,
)
from deploy.generated import settle
from deploy.merging import (
    BRANCH,
    leave,
    merged,
    merging,
    place,
    refuse_amid_another,
    refuse_in_the_way,
    tip,
    whole_or_none,
)
from deploy.origin import RECORD, Origin, without_password
from deploy.projection import HOOKLESS, project

RELEASE = re.compile(rf"{FETCHED}/tags/v?(\d+)\.(\d+)\.(\d+)")

NEXT = """
{version} of the template is merged and not yet committed: {count} files. Next:
  git diff --cached --stat    # what came
  make test                   # gets the environment of the new version, and tries everything
  git commit
To leave it: make update ABORT=1"""
CONFLICTS = """
{version} of the template came, and both sides edited these files:
{names}
Mend them (`git diff` shows where), `git add` them, and then: make update
To leave it: make update ABORT=1"""
STOPPED = """{version} of the template is merged, but {why}
Mend that, and then: make update
To leave it: make update ABORT=1"""
HEADS = """
The migrations have two heads now, yours and the template's. Before the commit: make join"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Merge a newer version of the template.")
    parser.add_argument("--to", default="", help="a tag, branch or commit of the template; else its newest release")
    parser.add_argument("--from", dest="url", default="", help="where the template is; else as it is recorded")
    parser.add_argument("--base", default="", help="the version that this clone came from, if it cannot be found")
    parser.add_argument("--abort", action="store_true", help="leave an update that is not committed")
    given = parser.parse_args()
    need_clone()
    if not (ROOT / ".git").exists():
        raise Refused(
            "this is a folder of a larger repository, and an update merges whole ones: "
            "update a clone of its own, and bring it here by `git subtree pull`"
        )
    if given.abort:
        leave()
    elif merging():
        go_on()
    else:
        update(given.to, given.url, given.base)


def update(to: str, url: str, base: str) -> None:
    refuse_unfit()
    origin = Origin.read() or Origin()
    url = url or origin.url or ask("config", "--get", "remote.origin.url")
    if not url:
        raise Refused("it is not recorded where the template is: make update FROM=https://…")
    fetch(url)
    target = pick(to, url)
    base = find_base(base, origin.commit, target)
    if ask("merge-base", base, target) == target:
        if to and base != target:
            raise Refused(
                f"{describe(target)} is older than {describe(base)}, which this clone has: no update goes back"
            )
        say(f"there is nothing newer at {without_password(url)}: this clone has {describe(target)} already")
        return
    origin = replace(derived(origin, base), url=without_password(url))
    # The branch may be another machine's: its newest commit that was merged goes on being the one before.
    before = tip() or ask("rev-list", "--max-count=1", "--grep=^Template-Commit: ", "HEAD")
    old = commit(replace(origin, commit=base, version=describe(base)), before)
    new = commit(replace(origin, commit=target, version=describe(target)), old)
    refuse_in_the_way(old, new)
    merge(old, new, describe(target))
    go_on()


def refuse_unfit() -> None:
    need_clean_clone()
    if ask("rev-parse", "--is-shallow-repository") == "true":
        raise Refused("this clone is shallow, without the history to merge by: `git fetch --unshallow` gets it")
    refuse_amid_another()
    if ask("symbolic-ref", "--quiet", "HEAD") == BRANCH:
        raise Refused("this is the branch `template`, which is the update's own: switch to yours")
    if tip() and not ask("ls-tree", "--name-only", BRANCH, RECORD):
        raise Refused("there is a branch `template` that no update made: rename it")
    if not ask("var", "GIT_COMMITTER_IDENT"):
        raise Refused("git does not know who commits: git config user.name, and user.email")


def fetch(url: str) -> None:
    quiet = {} if sys.stdin.isatty() else {"GIT_TERMINAL_PROMPT": "0"}
    wanted = [f"+refs/heads/*:{FETCHED}/heads/*", f"+refs/tags/*:{FETCHED}/tags/*", f"+HEAD:{FETCHED}/HEAD"]
    done = attempt(
        "git", "fetch", "--quiet", "--no-tags", "--prune", "--", url, *wanted, environment=os.environ | quiet
    )
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if line.startswith("fatal: ")), "git fetch failed")
        raise Refused(f"the template at {without_password(url)} cannot be read ({without_password(said)})")


def pick(to: str, url: str) -> str:
    """Return the commit to update to. Raises Refused when there is none, or when it is no template's."""
    found = find_version(to or newest() or f"{FETCHED}/HEAD")
    if not found:
        raise Refused(f"the template has no {to}; its tags are {tags() or 'none'}")
    if ask("ls-tree", "--name-only", found, RECORD):
        raise Refused(f"{without_password(url)} is a clone and not the template: make update FROM=https://…")
    return found


def newest() -> str:
    """Return the newest release's tag; "" when there is none yet."""
    found = {line: RELEASE.fullmatch(line) for line in ask("for-each-ref", "--format=%(refname)", FETCHED).splitlines()}
    releases = {line: tuple(map(int, match.groups())) for line, match in found.items() if match}
    return max(releases, key=lambda line: releases[line], default="")


def tags() -> str:
    listed = ask("for-each-ref", "--format=%(refname:lstrip=3)", "--sort=-creatordate", f"{FETCHED}/tags").split()
    return ", ".join(listed[:5])


def derived(origin: Origin, base: str) -> Origin:
    """Return what the clone made of the template, whether or not its commands recorded it."""
    files = {
        name: ask("ls-tree", "-r", "--name-only", where).split() for name, where in (("old", base), ("own", "HEAD"))
    }
    gone = {
        found[1]
        for name in files["old"]
        if (found := re.fullmatch(r"deploy/remove_(\w+)\.py", name)) and name not in files["own"]
    }
    theirs = ask("show", f"{base}:LICENSE").splitlines()
    ours = (ROOT / "LICENSE").read_text().splitlines() if (ROOT / "LICENSE").exists() else []
    added = [
        line.removeprefix("Copyright (c) ") for line in ours if line.startswith("Copyright (c) ") and line not in theirs
    ]
    return replace(
        origin,
        name=project_name(),
        holder=origin.holder or next(iter(added), ""),
        removed=tuple(sorted(gone | set(origin.removed))),
    )


def describe(commit: str) -> str:
    """Return the tag of a version, or its commit's short name."""
    tag = ask("for-each-ref", "--points-at", commit, "--count=1", "--format=%(refname:lstrip=3)", f"{FETCHED}/tags")
    return tag or commit[:12]


def commit(origin: Origin, parent: str) -> str:
    """Return a commit of a version as this clone would have made it; the parent itself when it is the same."""
    say(f"{origin.version} as {origin.name}{''.join(f', without the {what}' for what in origin.removed)} …")
    tree = project(origin.commit, origin)
    if parent and ask("rev-parse", f"{parent}^{{tree}}") == tree:
        return parent
    message = f"Template {origin.version} as {origin.name}\n\nTemplate-Commit: {origin.commit}"
    return run("git", "commit-tree", tree, *(("-p", parent) if parent else ()), "-m", message).strip()


def merge(old: str, new: str, version: str) -> None:
    """Merge what is between two versions, and leave it as `git merge --no-commit` would: for `git commit` to end."""
    head = ask("rev-parse", "HEAD")
    labels = {f"GITHEAD_{head}": "yours", f"GITHEAD_{new}": f"template {version}"}
    settings = ("-c", "merge.directoryRenames=false")
    with whole_or_none(new):
        run("git", *HOOKLESS, "update-ref", "-m", f"update to {version}", BRANCH, new)
        done = attempt("git", *settings, "merge-recursive", old, "--", head, new, environment=os.environ | labels)
        if done.returncode > 1:
            raise Refused(f"git could not merge:\n{done.stdout}{done.stderr}")
        run("git", *HOOKLESS, "checkout", new, "--", RECORD)
        settle(old, head, new)
        place("MERGE_MODE").write_text("no-ff")
        place("MERGE_MSG").write_text(f"Update to {version} of the template\n")
        place("MERGE_HEAD").write_text(f"{new}\n")  # last: with it the update is under way, and goes on


def go_on() -> None:
    """Say what is in conflict, or make the generated files anew and say what is next."""
    version = describe((Origin.parse(run("git", "show", f"{merged()}:{RECORD}"))).commit)
    if left := ask("diff", "--name-only", "--diff-filter=U").splitlines():
        say(CONFLICTS.format(version=version, names="\n".join(f"  {name}" for name in left)))
        return
    try:
        make_anew()
    except Refused as refused:
        raise Stopped(STOPPED.format(version=version, why=refused)) from refused
    say(NEXT.format(version=version, count=len(ask("diff", "--cached", "--name-only").splitlines())))
    heads = attempt(sys.executable, "-m", "alembic", "heads")
    if heads.stdout.count("(head)") > 1:
        say(HEADS)


def make_anew() -> None:
    """Make the lock file, the environment and what is generated fit what was merged."""
    lock()
    if Path(sys.prefix) == ROOT / ".venv":
        follow_up("sh", "deploy/setup.sh", "--group", "dev", "--group", "helm")
    follow_up(sys.executable, "deploy/generate.py")
    run("git", "add", "--update")
    run("git", "add", "--", "helm/observability")


if __name__ == "__main__":
    command(main)
