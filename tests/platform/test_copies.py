"""Programs on copies of the repository, beside the suite that runs them."""

from service.platform.testing.copies import ROOT, run_in


def test_no_two_runs_of_pytest_tidy_up_the_same_directory() -> None:
    ask = ("python", "-c", "import os; print(os.environ['PYTEST_DEBUG_TEMPROOT'])")

    assert len({run_in(ROOT, *ask).stdout for _ in range(2)}) == 2
