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

from service.features import FEATURES  # noqa: E402  # after the path above
from service.platform.feature import catalogue  # noqa: E402  # the same
from service.platform.settings import documents  # noqa: E402  # the same
from service.settings import Settings  # noqa: E402  # the same

BEGIN, END = "<!-- settings: made by `make generate` -->\n", "<!-- end of settings -->\n"
CHARTS = ROOT / "helm" / "observability"


def texts() -> dict[Path, str]:
    """Return what README and .env.example should hold."""
    known = catalogue(Settings, FEATURES)
    readme, table = ROOT / "README.md", f"{BEGIN}{documents.markdown(known)}\n{END}"
    whole = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: table, readme.read_text(), flags=re.DOTALL)
    return {readme: whole, ROOT / ".env.example": documents.env(known) + "\n"}


def observability() -> dict[Path, str]:
    """Return what the chart's folder of alerts and dashboards should hold, and nothing else."""
    own = ROOT / "deploy" / "observability"
    of_features = sorted(ROOT.glob("service/*/observability"))
    rules = [
        path.read_text().partition("groups:\n")[2] for path in (folder / "rules.yaml" for folder in [own, *of_features])
    ]
    dashboards = {
        CHARTS / "dashboard.json": own,
        **{CHARTS / f"dashboard-{one.parent.name}.json": one for one in of_features},
    }
    return {
        CHARTS / "rules.yaml": "# Made by `make generate`; the sources are in deploy/ and in the features.\ngroups:\n"
        + "".join(rules),
        **{copy: (folder / "dashboard.json").read_text() for copy, folder in dashboards.items()},
    }


def main() -> None:
    copies = observability()
    CHARTS.mkdir(exist_ok=True)
    for path in set(CHARTS.iterdir()) - copies.keys():
        path.unlink()
    for path, text in (texts() | copies).items():
        path.write_text(text)
    runpy.run_path(str(ROOT / "helm" / "generate.py"), run_name="__main__")


if __name__ == "__main__":
    main()
