"""Write what follows from other files: run by `make generate`, after a change of a setting, a chart value or an alert.

The table in the README and .env.example from the settings classes; what the chart says of both; and the alerts and
dashboards of the platform and of each feature, copied to where the chart can read them. Tests compare.
"""

import re
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, from anywhere

from deploy.clone import ask, command, rewrite, say, template_page  # noqa: E402  # after the path above

BEGIN, END = "<!-- settings: made by `make generate` -->\n", "<!-- end of settings -->\n"
CHARTS = ROOT / "helm" / "observability"


def texts() -> dict[Path, str]:
    """Return what README and .env.example should hold."""
    from service.features import FEATURES  # here: imports take their time, in which Ctrl-C may come
    from service.platform.feature import catalogue
    from service.platform.settings import documents
    from service.settings import Settings

    known = catalogue(Settings, FEATURES)
    readme, table = template_page("README.md"), f"{BEGIN}{documents.markdown(known)}\n{END}"
    found = {ROOT / ".env.example": documents.env(known) + "\n"}
    if readme.exists():  # a clone may have thrown the page away
        parts = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
        found[readme] = re.sub(parts, lambda _: table, readme.read_text(), flags=re.DOTALL)
    return found


def observability() -> dict[Path, str]:
    """Return what the chart's folder of alerts and dashboards should hold, and nothing else. A source may lack one."""
    folders = {f"-{folder.parent.name}": folder for folder in sorted(ROOT.glob("service/*/observability"))}
    folders = {"": ROOT / "deploy" / "observability"} | folders
    rules = [path for folder in folders.values() if (path := folder / "rules.yaml").exists()]
    groups = [groups_of(path.read_text()) for path in rules]
    note = "# Made by `make generate`; the sources are in deploy/ and in the features.\n"
    dashboards = {CHARTS / f"dashboard{of}.json": folder / "dashboard.json" for of, folder in folders.items()}
    return {CHARTS / "rules.yaml": f"{note}groups:\n{''.join(groups)}"} | {
        copy: source.read_text() for copy, source in dashboards.items() if source.exists()
    }


def groups_of(rules: str) -> str:
    """Return the groups of a file as they stand below those of others: by two blanks, wherever its own begin.

    Of a file without any it is nothing.
    """
    begin = re.search(r"^groups:.*\n", rules, re.MULTILINE)
    groups = rules[begin.end() :] if begin else ""
    indented = re.search(r"^( *)- ", groups, re.MULTILINE)
    if indented is None:
        return ""
    own = re.compile(f"^ {{0,{len(indented[1])}}}(?=.)", re.MULTILINE)
    return own.sub("  ", groups).rstrip("\n") + "\n"


def main() -> None:
    copies = observability()
    CHARTS.mkdir(exist_ok=True)
    for path in sorted(set(CHARTS.iterdir()) - copies.keys()):
        if path.is_file() and ask("ls-files", "--", str(path)):
            path.unlink()
        else:  # git could not bring it back
            say(f"{path.relative_to(ROOT)} is not made here: move it, a dashboard to a feature's observability folder")
    for path, text in (texts() | copies).items():
        rewrite(path, text)
    runpy.run_path(str(ROOT / "helm" / "generate.py"), run_name="__main__")


if __name__ == "__main__":
    command(main, alone=False)
