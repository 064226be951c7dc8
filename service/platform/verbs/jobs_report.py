"""What `service jobs` prints: the management listener's answers as tables."""

import json
from collections.abc import Sequence

from service.platform.errors import plain
from service.platform.verbs.inspect import ask_json, ours

_COLUMNS = ("id", "kind", "state", "failures", "run_at", "error")
_WIDEST = 60  # characters of an error in a list


async def counts(url: str) -> str:
    """Return the counts by kind and state. Raises AskError."""
    found = await ask_json(url, "/jobs")
    with ours(url + "/jobs"):
        rows = [
            (one["kind"], one["state"], str(one["count"]), f"{one['oldest']:.0f} s" if one["due"] else "")
            for one in sorted(found["counts"], key=lambda one: (one["kind"], one["state"]))
        ]
    return table(("kind", "state", "jobs", "oldest due"), rows) if rows else "no job waits, runs or is dead"


async def some(url: str, query: str) -> str:
    """Return a list of jobs. Raises AskError."""
    found = await ask_json(url, f"/jobs/list?{query}")
    with ours(url + "/jobs/list"):
        rows = [[str(one.get(name, ""))[:_WIDEST].replace("\n", " ") for name in _COLUMNS] for one in found["jobs"]]
    return table(_COLUMNS, rows) if rows else "no such job"


async def one(url: str, id: int, change: str) -> str:  # noqa: A002  what the argument is called
    """Return a job, a line for each thing that is known, after a change to it. Raises AskError."""
    path = f"/jobs/{id}/{change}".rstrip("/")
    found = await ask_json(url, path, method="POST" if change else "GET", body={} if change else None)
    with ours(url + path):
        found["id"]
    lines = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in found.items()]
    return plain("\n".join(f"{name:<13} {value}" for name, value in lines))


async def of_a_kind(url: str, query: str, change: str) -> str:
    """Return what became of the jobs of a kind. Raises AskError."""
    found = await ask_json(url, f"/jobs/{change}?{query}", method="POST", body={})
    what = {"retry": "wait again", "discard": "discarded"}[change]
    with ours(f"{url}/jobs/{change}"):
        return f"{found['kind']}: {found['changed']} {what}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return plain("\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)))
