"""What becomes of a Deployment's `replicas` when manifests are applied and others scale: the rules of the API server.

Server-side apply, as Helm 4, Argo CD and Flux use it: a field belongs to those who applied or set it; who applies a
manifest without it gives up their claim, and a field that nobody claims any more falls back to the default, 1.
"""

from dataclasses import dataclass, field
from typing import Any

DEFAULT = 1


class ConflictError(Exception):
    """Somebody else owns the field, and has another number in it."""


@dataclass
class Deployment:
    replicas: int | None = None
    owners: set[str] = field(default_factory=set)

    def apply(self, manager: str, spec: dict[str, Any]) -> None:
        """Apply on the server, without force."""
        if "replicas" in spec:
            if self.owners - {manager} and self.replicas != spec["replicas"]:
                raise ConflictError(f"{self.owners - {manager}} say {self.replicas}")
            self.replicas = spec["replicas"]
            self.owners.add(manager)
        else:
            self.owners.discard(manager)
            self.replicas = self.replicas if self.owners else DEFAULT

    def scale(self, manager: str, replicas: int) -> None:
        """Set by the scale subresource: who changes the number owns it alone, who repeats it owns nothing."""
        if replicas != self.replicas:
            self.replicas, self.owners = replicas, {manager}

    def patch(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Merge three ways, as Helm 3 does: what the manifest had and has no longer is removed."""
        if "replicas" in after:
            self.replicas = after["replicas"]
        elif "replicas" in before:
            self.replicas = DEFAULT
