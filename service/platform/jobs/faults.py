"""What an error says that ended an attempt: whose fault it is, the job's or the database's, and why in a line."""

from service.platform.database.address import PasswordUnreadable
from service.platform.database.sqlstate import one_line, sqlstate_of
from service.platform.database.wire import ConnectFailed
from service.platform.errors import (
    MAX_DETAIL,
    Busy,
    DatabaseAway,
    DatabaseIncomplete,
    DatabaseUnable,
    OutcomeUnknown,
    cut,
    leaves,
)
from service.platform.jobs.declare import StoredArgumentsWrong

# States that DatabaseUnable has because of what the job asks for, so that waiting mends nothing: a statement that took
# too long, more memory or temporary files than there may be, and what PostgreSQL itself stumbles over (appendix A).
_OF_THE_STATEMENT = ("57014", "53200", "53400", "XX")
# And those that a connection ends with because of the job: it did something else in its transaction for too long.
_OF_THE_TRANSACTION = ("25P03", "25P04")

_NONE_HAD = (ConnectFailed, PasswordUnreadable, OSError)  # what keeps a connection from being made


def is_the_databases(error: BaseException) -> bool:
    """Tell whether the database alone kept the job from its end, so that no attempt is spent.

    Another service that is away (PeerAway) is the job's affair: retries are there for it. So is a table, a column or a
    right that is not there (DatabaseIncomplete), which mostly is a mistake in the job, and nobody would hear of it.
    """
    return all(_is_the_databases(one) for one in leaves(error))


def _is_the_databases(error: BaseException) -> bool:
    if isinstance(error, DatabaseUnable):
        return not error.sqlstate.startswith(_OF_THE_STATEMENT)
    if isinstance(error, DatabaseAway) and error.__cause__ is not None:
        return not sqlstate_of(error.__cause__).startswith(_OF_THE_TRANSACTION)
    return isinstance(error, Busy | DatabaseAway | OutcomeUnknown)


def may_be_its_own(error: BaseException) -> bool:
    """Tell whether the job may be what ended its connection. That none is free, or to be had, is others' doing."""
    return any(isinstance(one, DatabaseAway) and not isinstance(one.__cause__, _NONE_HAD) for one in leaves(error))


def is_told(error: BaseException) -> bool:
    """Tell whether its line says all: what is missing in the database is in the log already, with its statement."""
    return all(isinstance(one, StoredArgumentsWrong | DatabaseIncomplete) for one in leaves(error))


def describe(error: BaseException) -> str:
    """Return what is kept with the job: of a group the errors in it."""
    return cut("; ".join(f"{type(one).__name__}: {_text(one)}" for one in leaves(error)), MAX_DETAIL)


def _text(error: BaseException) -> str:
    """Return an error's own text, which may be anything, as one that PostgreSQL stores: half a pair is written out."""
    try:
        text = cut(one_line(error), MAX_DETAIL)
    except Exception as broken:  # a class of anybody's says how it is made
        text = f"its text cannot be made: {type(broken).__name__}"
    return text.encode(errors="backslashreplace").decode()
