"""What the connections of one process share."""

from dataclasses import dataclass, field
from inspect import iscoroutinefunction

from service.chat.rooms import Rooms
from service.chat.rules import Action, Rule, check
from service.chat.statistics import ChatStatistics
from service.chat.writer import Writer
from service.platform.http import Conversations
from service.platform.identity import Caller, obey
from service.platform.settings import PlatformSettings


@dataclass(frozen=True, slots=True, eq=False)
class Chat:
    settings: PlatformSettings
    rooms: Rooms
    writer: Writer
    conversations: Conversations
    replica: str
    rule: Rule = check
    statistics: ChatStatistics = field(default_factory=ChatStatistics)

    def __post_init__(self) -> None:
        if iscoroutinefunction(self.rule):  # nobody would wait for it, nor hear what it raises
            raise ValueError("a rule does not wait: it is asked for each message")

    def ask(self, caller: Caller, room: str, action: Action) -> None:
        """Raise Forbidden for what a caller may not do in a room."""
        obey(self.rule, caller, room, action)
