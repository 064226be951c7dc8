"""What the generator of requests must know of the features: each `tests/<feature>/api_hooks.py`, imported."""

from importlib import import_module
from pathlib import Path

for path in sorted(Path(__file__).parents[2].glob("*/api_hooks.py")):
    import_module(f"tests.{path.parent.name}.api_hooks")
