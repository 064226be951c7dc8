"""What is counted about who is asking, and shown as metrics: plain numbers of one process."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.platform.telemetry import Metrics

if TYPE_CHECKING:
    from service.platform.identity.keys import Keys


class IdentityStatistics:
    """Words that count as reasons come from code, so their number is bounded."""

    def __init__(self) -> None:
        self.tokens: Counter[str] = Counter()  # whose signature was looked at, or whose form forbade that, by result
        self.remembered = 0  # tokens that were found to be verified already
        self.tickets: Counter[str] = Counter()
        self.sign_ins: Counter[str] = Counter()  # that came back from the provider
        self.sessions_begun = 0
        self.sessions_ended: Counter[str] = Counter()  # by this process
        self.websockets_ended: Counter[str] = Counter()


def show_identity(metrics: Metrics, seen: IdentityStatistics, keys: "Keys[Any] | None") -> None:
    """Show them; without keys identity is off, and what has no number is left out."""

    def of_keys() -> Mapping[str, float]:
        done = keys.statistics if keys is not None else None
        return {} if done is None else {"fetched": done.fetches - done.failures, "failed": done.failures}

    metrics.gauge("identity_provider_up", "1 when the last fetch of its keys worked.", lambda: _up(keys))
    metrics.gauge("identity_keys", "Keys that tokens are verified with.", lambda: _of(keys, "count"))
    metrics.gauge("identity_keys_age_seconds", "Since the keys were fetched.", lambda: _of(keys, "age"))
    metrics.counter("identity_key_fetches_total", "Fetches of the keys, by result.", of_keys, label="result")
    metrics.counter(
        "identity_tokens_total",
        "Tokens verified or refused: accepted, or why not. What is remembered is not among them.",
        lambda: seen.tokens,
        label="result",
    )
    metrics.counter("identity_tokens_remembered_total", "Tokens known as verified.", lambda: seen.remembered)
    metrics.counter("identity_tickets_total", "Tickets made, taken, refused.", lambda: seen.tickets, label="result")
    metrics.counter("identity_sign_ins_total", "Browsers that came back.", lambda: seen.sign_ins, label="result")
    metrics.counter("identity_sessions_begun_total", "Sessions begun.", lambda: seen.sessions_begun)
    metrics.counter(
        "identity_sessions_ended_total",
        "Sessions that this process ended, by reason.",
        lambda: seen.sessions_ended,
        label="reason",
    )
    metrics.counter(
        "identity_websockets_ended_total",
        "Websockets that had to end, by reason.",
        lambda: seen.websockets_ended,
        label="reason",
    )


def _up(keys: "Keys[Any] | None") -> float | Mapping[Any, float]:
    return {} if keys is None or (keys.age is None and not keys.error) else float(not keys.error)


def _of(keys: "Keys[Any] | None", name: str) -> float | Mapping[Any, float]:
    found: float | None = getattr(keys, name, None)
    return {} if found is None else found
