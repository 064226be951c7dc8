"""Give a clone its own name: .venv/bin/python deploy/rename.py NAME [--holder "Example Ltd"]

What outsiders see is renamed: project, lock file, chart, image, titles, dashboards, examples in the documents; code has
the name from service/platform/name.py. The package `service`, the variables `SERVICE_*` and the platform keep theirs.
The first rename also makes README, SECURITY, CHANGELOG and DECISIONS the clone's own. Nothing is staged or committed.
"""

import argparse
import datetime
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy.clone import (  # after the path above
    OWN,
    ROOT,
    TEMPLATE_DOCS,
    Refused,
    answer,
    command,
    follow_up,
    project_name,
    say,
    tracked,
)
from deploy.origin import need_clone_to_record, remember  # the same

GOOD_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
PAGES = ROOT / "deploy" / "pages"
LONGEST = 40  # a release's name, a hyphen and this are a Kubernetes name of 63 at most
LINK = re.compile(r"(\]\()([^)#\s:]+)([)#])")

# Where the name stands, by pattern of files: text with the name in it, so that no other word is taken for it.
PLACES: dict[str, tuple[str, ...]] = {
    ".github/workflows/release.yml": ("repository: {name}\\$", "dist/{name}-$", "charts/{name}@"),
    "CONTRIBUTING.md": ("How we write {title}\n",),
    "Dockerfile": ('image.title="{name}"',),
    "deploy/README.md": (" {name}:",),
    "deploy/build-image.sh": ("({name}:VERSION)", ":-{name}:$version"),
    "deploy/compose.yaml": ("name: {name}\n", "image: {name}:"),
    "deploy/kind.sh": ("`{name}`", "={name}:", "--name {name} ", "--name {name}\n"),
    "deploy/observability/dashboard.json": ('"uid": "{name}"', '"title": "{title}"', ' "{name}"\n'),
    "deploy/runbook.md": ("demo-{name}",),
    "deploy/systemd/*": (
        *(
            "/opt/{name}",
            "/etc/{name}",
            "{name}-migrate",
            "{name}.service",
            "{name}.sysusers",
            "{name}.conf",
            "{name}.git",
        ),
        *("/{name}.git", "={name}\n", "={title}", "u {name} ", "id={name} ", '"{title}"', "//{name}@/{name}?"),
        *("createuser {name}", "--owner {name} ", "template0 {name}", "-u {name} ", "restart {name}", "start {name}"),
    ),
    "deploy/trial.sh": ("{name}-trial", "demo-{name}"),
    "docs/backup.md": ("{name}.dump",),
    "helm/Chart.yaml": ("name: {name}\n",),
    "helm/README.md": ("\n{title} on Kubernetes", " {name}-database", "`{name}:VERSION`"),
    "helm/ci/everything-values.yaml": ("example.org/{name},",),
    "helm/ci/keda-values.yaml": ('include "{name}.',),
    "helm/templates/*.*": ('include "{name}.', 'define "{name}.'),
    "helm/templates/tests/*": ('include "{name}.', 'define "{name}.'),
    "helm/values-production.yaml": (" {name}-database",),
    "helm/values.yaml": ("  repository: {name}\n", "/example/{name}/"),
    "pyproject.toml": ('\nname = "{name}"\n',),
    "service/*/observability/dashboard.json": ('"uid": "{name}', '"title": "{title}', ' "{name}"\n'),
    "service/*/page/index.html": ("<title>{title}</title>", "<strong>{title}</strong>"),
    "service/*/runbook.md": ("demo-{name}",),
    "service/platform/name.py": ('NAME = "{name}"\n',),
    "tests/helm/mutations.yaml": ('include "{name}.', 'include \\"{name}.'),
    "uv.lock": ('\nname = "{name}"\n',),
}
TEMPLATE_DESCRIPTION = r"A production service on QuartTrio[^\"]*"

NEXT = """It is called {name} now. Next:
  git diff                   # one clean change
  make check                 # gets the environment under the new name
  git add --all && git commit -m "Call it {name}"
To undo this: git reset --hard && git clean -df -- service/platform/docs deploy/systemd .template.toml"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Give this clone its own name.")
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--holder", default="", help="who holds the copyright of what you add; a line in LICENSE")
    given = parser.parse_args()
    old, new = project_name(), given.name
    refuse_bad(new)
    holder = given.holder.strip()
    refuse_bad_holder(holder)
    need_clone_to_record()  # first: one that was interrupted is not taken for done
    if old == new and (not holder or holds(holder)):
        say(f"it is called {new} already: nothing to do")
        return
    refuse_taken(new, old)
    holder = holder or answer("Who holds the copyright of what you add? (nothing leaves LICENSE as it is) ")
    refuse_bad_holder(holder)
    replace(old, new)
    for path, target in moves(old, new).items():
        path.rename(target)
    first_time = not (ROOT / TEMPLATE_DOCS / "README.md").exists()
    if first_time:
        make_pages_own(title_of(new))
    else:
        name_pages_anew(title_of(old), title_of(new))
    if holder:
        add_holder(holder)
    remember(name=new, **({"holder": dated(holder)} if holder else {}))
    follow_up(sys.executable, "deploy/generate.py")
    say(NEXT.format(name=new))
    if not holder:
        say("LICENSE is as it was; `make rename NAME=… HOLDER=…` adds a line for what you write.")


def refuse_bad(name: str) -> None:
    if not name:
        raise Refused("say what it is to be called: make rename NAME=shop")
    if not GOOD_NAME.fullmatch(name) or len(name) > LONGEST:
        raise Refused(
            f"{name!r} cannot be the name of a project, a chart and an image: use lower-case letters, digits and "
            f"single hyphens between them, a letter first, at most {LONGEST} characters"
        )


def refuse_bad_holder(holder: str) -> None:
    if not holder.isprintable():  # as an arrow key is not
        raise Refused(f"the holder is one line of LICENSE, and not {holder!r}")


def refuse_taken(name: str, old: str) -> None:
    packages = set(re.findall(r'^name = "([^"]+)"$', (ROOT / "uv.lock").read_text(), re.MULTILINE))
    if name == "service" or name in packages - {old}:
        raise Refused(f"{name} is the name of a package that this service uses: choose another")
    for path, target in moves(old, name).items():
        if target != path and os.path.lexists(target):
            raise Refused(f"{target.relative_to(ROOT)} is there already: choose another name, or move it first")


def title_of(name: str) -> str:
    """Return the name as service/platform/name.py makes a title of it."""
    return name.replace("-", " ").capitalize()


def replace(old: str, new: str) -> None:
    files = known()
    for pattern, places in PLACES.items():
        for path in files.intersection(ROOT.glob(pattern)):
            text = before_text = path.read_text(errors="surrogateescape")  # yours may be no text
            for place in places:
                before, after = (place.format(name=name, title=title_of(name)) for name in (old, new))
                text = text.replace(before, after)
            if pattern == "pyproject.toml":
                text = describe(text, title_of(old), title_of(new))
            if text != before_text:
                path.write_text(sort_packages(text) if pattern == "uv.lock" else text, errors="surrogateescape")


def moves(old: str, new: str) -> dict[Path, Path]:
    """Return the files that have the name in their own, and where they go."""
    found = known().intersection((ROOT / "deploy" / "systemd").glob(f"{old}[.-]*"))
    return {path: path.with_name(new + path.name.removeprefix(old)) for path in found}


def known() -> set[Path]:
    """Return the files that git could bring back; of others in the same folders none is touched."""
    return {ROOT / name for name in tracked()}


def describe(text: str, old: str, new: str) -> str:
    """Replace the template's description, or one that a rename wrote, and none that somebody else did."""
    ours = rf'(?m)^description = "(?:{TEMPLATE_DESCRIPTION}|{old})"$'
    return re.sub(ours, f'description = "{new}"', text)


def sort_packages(lock: str) -> str:
    """Return a lock file with its packages in uv's order."""
    head, *packages = lock.rstrip("\n").split("\n[[package]]\n")
    packages = sorted((one.strip("\n") for one in packages), key=lambda one: one.split('"')[1])
    return head + "".join(f"\n[[package]]\n{one}\n" for one in packages)


def make_pages_own(title: str) -> None:
    """Move the template's pages into the platform's folder, mend the links of and to them, and write the clone's."""
    kept = {name: str(TEMPLATE_DOCS / name) for name in OWN}
    (ROOT / TEMPLATE_DOCS).mkdir(exist_ok=True)
    for document in [name for name in tracked() if name.endswith(".md")]:
        target = kept.get(document, document)
        text = (ROOT / document).read_text(errors="surrogateescape")  # yours may be in another encoding
        mended = LINK.sub(lambda link, a=document, b=target: mend(link, a, b, kept), text)
        if mended != text or target != document:
            (ROOT / target).write_text(mended, errors="surrogateescape")
    for name in OWN:
        (ROOT / name).write_text((PAGES / f"{name}.in").read_text().replace("{title}", title))


def name_pages_anew(old: str, new: str) -> None:
    """Replace the name in the lines that a rename wrote; others are the clone's own."""
    for name in [name for name in OWN if (ROOT / name).exists()]:
        text = (ROOT / name).read_text()
        for line in (PAGES / f"{name}.in").read_text().splitlines(keepends=True):
            text = text.replace(*(line.replace("{title}", title) for title in (old, new)))
        (ROOT / name).write_text(text)


def mend(link: re.Match[str], document: str, target: str, moved: dict[str, str]) -> str:
    before, address, after = link.groups()
    meant = os.path.normpath(Path(document).parent / address)
    return f"{before}{os.path.relpath(moved.get(meant, meant), Path(target).parent)}{after}"


def holds(holder: str) -> bool:
    return f" {holder}\n" in (ROOT / "LICENSE").read_text()


def add_holder(holder: str) -> None:
    """Add a line above the template's, which its licence requires to stay."""
    if holds(holder):
        return
    path = ROOT / "LICENSE"
    line = f"Copyright (c) {dated(holder)}\n"
    path.write_text(path.read_text().replace("Copyright (c)", f"{line}Copyright (c)", 1))


def dated(holder: str) -> str:
    """Return the holder with a year before it: the one that is given with it, or this one."""
    return holder if re.match(r"\d{4}\b", holder) else f"{datetime.datetime.now(datetime.UTC).year} {holder}"


if __name__ == "__main__":
    command(main)
