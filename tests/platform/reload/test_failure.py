"""A failed start in a few lines: what is wrong, in which file and line."""

from pathlib import Path

import pytest

from service.platform.reload.failure import describe


def failure(root: Path, source: str) -> BaseException:
    """Return what goes wrong when this is the file service/orders.py of a clone."""
    file = root / "service" / "orders.py"
    file.parent.mkdir()
    file.write_text(source)
    try:
        exec(compile(source, file, "exec"), {"__name__": "service.orders"})  # noqa: S102  as an import does
    except Exception as error:
        return error
    pytest.fail("nothing went wrong")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "def total(:\n    pass\n",
            ["SyntaxError: invalid syntax", "  service/orders.py:1", "    def total(:", "              ^"],
        ),
        (
            "def total():\n    return rows\n\ntotal()\n",
            [
                "NameError: name 'rows' is not defined",
                "  service/orders.py:4 in <module>",
                "    total()",
                "  service/orders.py:2 in total",
                "    return rows",
            ],
        ),
        (
            "import json\n\njson.loads('')\n",
            [
                "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
                "  service/orders.py:3 in <module>",
                "    json.loads('')",
            ],
        ),
        (
            "raise ValueError('2 fields are wrong\\nname\\n  is missing: see there')\n",
            [
                "ValueError: 2 fields are wrong",
                "  name",
                "    is missing: see there",
                "  service/orders.py:1 in <module>",
                "    raise ValueError('2 fields are wrong\\nname\\n  is missing: see there')",
            ],
        ),
        (
            "error = ValueError('no such table')\nerror.add_note('see: docs')\nraise error\n",
            ["ValueError: no such table", "  see: docs", "  service/orders.py:3 in <module>", "    raise error"],
        ),
        ("raise LookupError\n", ["LookupError", "  service/orders.py:1 in <module>", "    raise LookupError"]),
    ],
    ids=[
        "a syntax error",
        "an error of one's own",
        "an error of a library",
        "an error of some lines",
        "an error with a note",
        "an error without words",
    ],
)
def test_it_says_what_and_where(tmp_path: Path, source: str, expected: list[str]) -> None:
    said = describe(failure(tmp_path, source), tmp_path, coloured=False)

    assert [line.removeprefix("  ") for line in said.splitlines() if line.strip()] == expected


def test_each_error_of_a_group_is_said(tmp_path: Path) -> None:
    group = ExceptionGroup("in a nursery", [ValueError("one"), ExceptionGroup("inside", [KeyError("two")])])
    said = describe(group, tmp_path, coloured=False)

    assert "ValueError: one" in said
    assert "KeyError: 'two'" in said


def test_colours_are_for_terminals(tmp_path: Path) -> None:
    error = failure(tmp_path, "1 / 0\n")

    assert "\x1b[" in describe(error, tmp_path, coloured=True)
    assert "\x1b[" not in describe(error, tmp_path, coloured=False)
