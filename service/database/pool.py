"""The open connections that no unit uses right now. Lives in the event loop: no locks, no threads."""

from service.database.address import Address, PasswordUnreadable
from service.database.line import Line
from service.database.wire import ConnectFailed, connect
from service.errors import DatabaseAway


class Pool:
    """Idle lines, the latest used first. How many are out is for `Slots` to say."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.replaced = 0
        self._idle: list[Line] = []
        self._closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def take(self) -> Line:
        """Return a line that lives, as far as one can tell without a round trip. Raises DatabaseAway."""
        while self._idle:
            line = self._idle.pop()
            if not line.found_dead():
                return line
            line.close()
            self.replaced += 1
        return await self.open()

    async def open(self) -> Line:
        """Return a new line. Raises DatabaseAway when there is none within the limit."""
        try:
            return Line(await connect(self.address.parameters), prepares=self.address.prepares)
        except (ConnectFailed, PasswordUnreadable) as error:
            raise DatabaseAway("PostgreSQL cannot be reached") from error

    def give(self, line: Line) -> None:
        """Take a line back; one that is not clean is closed."""
        if line.usable and not self._closed:
            self._idle.append(line)
        else:
            line.close()

    def close(self) -> None:
        self._closed = True
        for line in self._idle:
            line.close()
        self._idle.clear()
