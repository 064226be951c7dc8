"""What the chat counts about itself, and as which metrics it is shown."""

from collections.abc import Callable
from dataclasses import dataclass

from service.platform.http import Conversations
from service.platform.telemetry import Metrics


@dataclass(slots=True)
class ChatStatistics:
    """One per process; plain numbers that only rise."""

    messages: int = 0  # stored by this process; a repeat is none
    observe_delivery: Callable[[float], None] = lambda _: None  # seconds


def show(metrics: Metrics, seen: ChatStatistics, talks: Conversations, *, waiting: Callable[[], int]) -> None:
    metrics.gauge("chat_members", "Connections that chat.", lambda: len(talks))
    metrics.gauge("chat_sends_waiting", "Sends that are not answered yet.", waiting)
    metrics.counter("chat_messages_total", "Messages stored.", lambda: seen.messages)
    metrics.counter("chat_outbox_overflows_total", "Members let go, as they read too slowly.", lambda: talks.overflows)


def show_delivery(metrics: Metrics) -> Callable[[float], None]:
    """Return what is told how long a message took to the members that are here.

    Not to those on other replicas: the message's own time is the database's clock, and its difference to theirs would
    be counted as delivery. Their share is what `service load` measures, with one clock.
    """
    return metrics.histogram(
        "chat_delivery_seconds",
        "From a send, as the replica that took it read it, over its commit to the members on that same replica.",
    ).observe
