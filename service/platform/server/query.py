"""What a query holds: few fields, as taking each apart is Python's, 15 ms for all that fit into a head."""

from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import MultiDict
from werkzeug.utils import cached_property

from service.platform.errors import Invalid

MOST_FIELDS = 1_000  # as many as Quart takes of a form's parts, and Django of both


class FewFields(BaseRequestWebsocket):
    @cached_property
    def args(self) -> MultiDict[str, str]:
        """The query. Raises Invalid for one of more than 1,000 fields."""
        fields = self.query_string.count(b"&") + 1
        if fields > MOST_FIELDS:
            raise Invalid(f"query: must have at most {MOST_FIELDS} fields, not {fields}")
        return super().args
