"""Each rule fails when its line in the chart is broken: a rule that cannot fail would guard nothing."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.helm.charts import CHART, ROOT, copy_chart, shape_named
from tests.helm.rules import RULES


@dataclass(frozen=True)
class Mutation:
    """`old` becomes `new` in a file of the chart; then `rule` has something to say about a shape."""

    rule: str
    file: str
    old: str
    new: str
    shape: str = "trial"

    def __str__(self) -> str:
        return f"{self.rule}: {self.old.strip().splitlines()[0]}"


CLONED = (ROOT / ".template.toml").exists()
TABLE = yaml.safe_load((Path(__file__).parent / "mutations.yaml").read_text())
MUTATIONS = [Mutation(rule, **mutation) for rule, mutations in TABLE.items() for mutation in mutations]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_broken_line_is_caught(mutation: Mutation, tmp_path: Path) -> None:
    rule = RULES[mutation.rule]
    if CLONED and mutation.file == "values.yaml" and mutation.old not in (CHART / mutation.file).read_text():
        pytest.skip("a default of this clone's own; what the rule finds is tried on the template")
    assert list(rule(shape_named(mutation.shape))) == []

    broken = copy_chart(tmp_path / "chart", mutation.file, mutation.old, mutation.new)

    assert list(rule(shape_named(mutation.shape, broken)))


def test_every_rule_has_a_line_that_breaks_it() -> None:
    assert {mutation.rule for mutation in MUTATIONS} == RULES.keys()
