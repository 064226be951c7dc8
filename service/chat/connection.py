"""What the connections of one process share."""

from dataclasses import dataclass, field

from service.chat.rooms import Rooms
from service.chat.rules import Rule, check
from service.chat.statistics import ChatStatistics
from service.chat.writer import Writer
from service.platform.http import Conversations
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
