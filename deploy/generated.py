"""What is generated is no conflict: it is settled somehow after a merge, and made anew then."""

import re
import tempfile
from pathlib import Path

from deploy.clone import ROOT, attempt, run

WHOLE = re.compile(
    r"uv\.lock|\.env\.example|helm/values\.schema\.json|helm/templates/_settings\.tpl|helm/observability/.*"
)
SECTION = re.compile(r"(<!-- (\w+): made by .*? -->\n).*?(<!-- end of \2 -->\n)", re.DOTALL)


def settle(old: str, head: str, new: str) -> None:
    """Settle each conflict in a generated file, or in the generated part of a document; the others stay."""
    for name in run("git", "diff", "--name-only", "--diff-filter=U", "-z").split("\0")[:-1]:
        texts = [_show(commit, name) for commit in (head, old, new)]
        if WHOLE.fullmatch(name):
            _put(name, texts[2] if texts[2] is not None else texts[0])
        elif None not in texts and SECTION.search(texts[2] or ""):
            _merge_around(name, [text or "" for text in texts])


def _merge_around(name: str, texts: list[str]) -> None:
    """Merge a document with the same generated part on all sides; what is in conflict besides it stays so."""
    parts = {found[2]: found[0] for found in SECTION.finditer(texts[2])}
    same = [SECTION.sub(lambda found: parts.get(found[2], found[0]), text) for text in texts]
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / side for side in ("yours", "before", "template")]
        for path, text in zip(paths, same, strict=True):
            path.write_text(text)
        labels = [part for label in ("yours", "before", "template") for part in ("-L", label)]
        done = attempt("git", "merge-file", "-p", *labels, *map(str, paths))
    if done.returncode == 0:
        _put(name, done.stdout)
    else:
        (ROOT / name).write_text(done.stdout)


def _put(name: str, text: str | None) -> None:
    if text is None:
        run("git", "rm", "--quiet", "--force", "--", name)
        return
    (ROOT / name).write_text(text)
    run("git", "add", "--force", "--", name)


def _show(commit: str, name: str) -> str | None:
    """Return a file's text in a commit; None where it has none, as a picture."""
    done = attempt("git", "show", f"{commit}:{name}")
    try:
        done.stdout.encode()
    except UnicodeEncodeError:
        return None
    return done.stdout if done.returncode == 0 else None
