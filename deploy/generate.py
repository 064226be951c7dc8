"""Write what follows from the settings class: the table in the README, .env.example, and what the chart says of them.

Run `make generate` after changing a setting or a value of the chart; tests compare.
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


def main() -> None:
    known = catalogue(Settings, FEATURES)
    readme = ROOT / "README.md"
    table = f"{BEGIN}{documents.markdown(known)}\n{END}"
    text = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: table, readme.read_text(), flags=re.DOTALL)
    readme.write_text(text)
    (ROOT / ".env.example").write_text(documents.env(known) + "\n")
    runpy.run_path(str(ROOT / "helm" / "generate.py"), run_name="__main__")


if __name__ == "__main__":
    main()
