"""Take the smallest feature, hello, out of a clone: `make without-hello`.

What goes: its file and its test, this script, and the lines that are marked `hello`. Nothing is staged or committed, so
`git restore .` undoes it.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from deploy.clone import (  # after the path above
    ROOT,
    Refused,
    command,
    follow_up,
    say,
    template_page,
)
from deploy.marks import cut  # the same
from deploy.origin import need_clone_to_record, remember  # the same

GOES = ("service/hello.py", "tests/test_hello.py")
FEATURES = ROOT / "service" / "features.py"

NEXT = """hello is out. Next:
  make check
  git add --all && git commit -m "Remove hello"
To undo this: git restore . && git clean -f .template.toml"""


def main() -> None:
    need_clone_to_record()  # first: one that was interrupted is not taken for done
    if not (ROOT / GOES[0]).exists():
        raise Refused(f"there is no {GOES[0]}: it has been removed already")
    texts = {path: cut(path.read_text(), "hello") for path in (FEATURES, template_page("README.md")) if path.exists()}
    if re.search(r"\bhello\b", texts[FEATURES]):  # hello_world is another feature
        raise Refused("service/features.py names it in a line that is not marked `# hello`: take that out by hand")
    for name in GOES:
        (ROOT / name).unlink(missing_ok=True)
    for path, text in texts.items():
        path.write_text(text)
    remember(removed=["hello"])
    follow_up(sys.executable, "deploy/generate.py")
    Path(__file__).unlink()  # last: without it, it has been done
    say(NEXT)


if __name__ == "__main__":
    command(main)
