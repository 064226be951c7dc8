"""Where an update stands in git: what keeps one from beginning, whether one is under way, and how it is left."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.clone import ROOT, Refused, ask, run, say
from deploy.projection import HOOKLESS

BRANCH = "refs/heads/template"
# What git has in hand with a tree that may be clean, by the file that says so.
UNDER_WAY = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase, or `git am`,",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisection",
}


def refuse_amid_another() -> None:
    """Refuse where git has something else in hand: the merge would become a part of that."""
    if under_way := [what for name, what in UNDER_WAY.items() if place(name).exists()]:
        raise Refused(f"{under_way[0]} is under way: end it first, as `git status` says")


def refuse_in_the_way(old: str, new: str) -> None:
    """Refuse where the template adds a file and one is that git ignores: a merge writes over it without a word."""
    added = run("git", "diff", "--name-only", "--diff-filter=A", "--no-renames", "-z", old, new).split("\0")[:-1]
    for name in added:
        in_the_way = [name] if os.path.lexists(ROOT / name) else []
        in_the_way += [str(one) for one in Path(name).parents if (ROOT / one).is_file()]
        if in_the_way and not ask("ls-tree", "--name-only", "HEAD", "--", in_the_way[0]):
            raise Refused(f"{in_the_way[0]}, which git ignores, is where the template adds {name}: move it first")


@contextmanager
def whole_or_none(new: str) -> Iterator[None]:
    """Take a merge back that fails or is interrupted in this scope."""
    try:
        yield
    except BaseException:
        for name in ("MERGE_HEAD", "MERGE_MODE", "MERGE_MSG"):
            place(name).unlink(missing_ok=True)
        reset(new)
        raise


def leave() -> None:
    if not merging():
        raise Refused("no update is under way")
    new, before = merged(), untracked()
    reset(new)
    # The tree was clean when the update began: what git has laid beside a folder of that name is the update's.
    for name in (name for name in before if "~template " in name and (ROOT / name).is_file()):
        (ROOT / name).unlink()
    say("the update is left: everything is as it was before")
    if left := untracked():
        say("\n".join(("but for what was written meanwhile, which git does not know:", *left)))


def untracked() -> list[str]:
    return run("git", "ls-files", "--others", "--exclude-standard", "-z").split("\0")[:-1]


def reset(new: str) -> None:
    """Put the tree back to before an update, and the branch, unless another work tree's has gone on from there."""
    run("git", *HOOKLESS, "reset", "--quiet", "--hard")
    if tip() != new:
        return
    parents = [ask("rev-parse", "--verify", "--quiet", f"{new}~{back}") for back in (1, 2)]
    before = next((one for one in parents if one and ask("merge-base", one, "HEAD") == one), "")
    run("git", *HOOKLESS, "update-ref", *((BRANCH, before) if before else ("-d", BRANCH)))


def merging() -> bool:
    """Return whether an update is under way. Raises Refused when another merge is."""
    if not place("MERGE_HEAD").exists():
        return False
    if "\nTemplate-Commit: " not in ask("show", "--no-patch", "--format=%B", merged()):
        raise Refused("another merge is under way: end it first, by `git commit` or `git merge --abort`")
    return True


def merged() -> str:
    """Return what is merged: not the branch, which is also that of the repository's other work trees."""
    return place("MERGE_HEAD").read_text().split()[0]


def tip() -> str:
    return ask("rev-parse", "--verify", "--quiet", BRANCH)


def place(name: str) -> Path:
    return ROOT / run("git", "rev-parse", "--git-path", name).strip()
