"""All rules by name. A rule takes a Shape and yields a sentence for each place where its release breaks it."""

import inspect
from collections.abc import Callable, Iterator

from tests.helm import rules_of_objects, rules_of_pods
from tests.helm.charts import Shape

Rule = Callable[[Shape], Iterator[str]]

RULES: dict[str, Rule] = {
    name: rule
    for module in (rules_of_pods, rules_of_objects)
    for name, rule in inspect.getmembers(module, inspect.isgeneratorfunction)
    if rule.__module__ == module.__name__ and list(inspect.signature(rule).parameters) == ["shape"]
}
