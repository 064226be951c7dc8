"""`python -m bench growth` runs for the axes of the chat, at their smallest: what the figures are is not tested."""

import pytest

from bench import growth
from tests.chat.growth import AXES

OFTEN = {"members", "history"}  # the others start as many processes again, and measure by the same means


@pytest.mark.parametrize("axis", [pytest.param(axis, marks=() if axis in OFTEN else pytest.mark.ci) for axis in AXES])
def test_an_axis_at_its_smallest_gives_a_row(axis: str, capsys: pytest.CaptureFixture[str]) -> None:
    growth.main(["--most", "1", "--brief", "--axis", axis])

    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    head, rule, row = table
    assert head.count("|") == rule.count("|") == row.count("|")
