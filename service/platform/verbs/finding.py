"""One line of `service check`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `advice` says what to do when it is not well."""

    name: str
    seen: str
    advice: str = ""
    failed: bool = False

    def __str__(self) -> str:
        mark = "FAIL" if self.failed else "warn" if self.advice else "ok"
        return f"{mark:<5} {self.name:<12} {self.seen}" + (f"; {self.advice}" if self.advice else "")
