"""How often the process looks at everything for garbage, which stops its event loop."""

import json
import subprocess
import sys

import pytest

from service.platform.testing.processes import ROOT

# As many objects as 5,000 websockets come with; all of them stay.
CROWD = """
import gc, json
from service.platform.process import start
if {ours}:
    start.collect_as_usual()
crowd = [[] for _ in range(1_500_000)]
print(json.dumps([generation["collections"] for generation in gc.get_stats()]))
"""


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "trap: Python's"])
def test_a_crowd_is_not_looked_through_while_it_comes(ours: bool) -> None:
    command = [sys.executable, "-c", CROWD.format(ours=ours)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    young, middle, full = json.loads(done.stdout)

    assert young > middle > 50, "what is young is looked at as ever"
    assert (full == 0) is ours
