"""What an operator can decide about the chat."""

from pydantic import Field

from service.platform.settings import FeatureSettings, Seconds


class ChatSettings(FeatureSettings):
    """SERVICE_CHAT_*."""

    retention: Seconds = Field(
        30 * 86_400, ge=60, le=3_650 * 86_400, description="Seconds for which the chat keeps a message."
    )
