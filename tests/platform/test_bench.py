"""`python -m bench` says what it can measure; what comes of that is not tested."""

import pytest

from bench import __main__ as bench


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_the_benchmarks_and_where_the_options_of_growth_are(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main([option])
    printed = capsys.readouterr().out

    assert not ended.value.code
    assert [name for name in bench.ALL | bench.of_features() if name not in printed] == []
    assert "growth --help" in printed


@pytest.mark.parametrize(("given", "words"), [("nonsense", "no benchmark 'nonsense'"), ("--nonsense", "--nonsense")])
def test_what_is_no_benchmark_is_refused(capsys: pytest.CaptureFixture[str], given: str, words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["start", given])

    assert ended.value.code == 2
    assert words in capsys.readouterr().err
