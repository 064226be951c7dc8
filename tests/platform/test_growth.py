"""`python -m bench growth` runs for the platform's axes, at their smallest: what the figures are is not tested."""

import pytest

from bench import growth
from bench.tables import Extent, digits

OFTEN = {"websockets"}  # the others start a dozen processes


@pytest.mark.parametrize(
    "axis", [pytest.param(axis, marks=() if axis in OFTEN else pytest.mark.ci) for axis in growth.AXES]
)
def test_an_axis_at_its_smallest_gives_rows_of_its_table(axis: str, capsys: pytest.CaptureFixture[str]) -> None:
    growth.main(["--most", "1", "--brief", "--axis", axis])

    head, *rest = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rest) > 1
    assert {line.count("|") for line in rest} == {head.count("|")}


def test_sizes_go_as_far_as_is_asked() -> None:
    known = (10, 100, 1_000, 10_000)

    assert list(Extent().sizes(known, 1_000)) == [10, 100, 1_000]
    assert list(Extent(most=10**7).sizes(known, 1_000)) == list(known)
    assert list(Extent(most=1).sizes(known, 1_000)) == [10]


def test_an_axis_that_is_none_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--axis", "nonsense"])

    assert "websockets" in capsys.readouterr().err


def test_figures_have_three_digits() -> None:
    assert [digits(number) for number in (0.1234, 12.34, 123.4, 12_345.6)] == ["0.12", "12.3", "123", "12,346"]
