"""Which errors are the failure of the request or the job that raised them, and which are to pass whoever catches those.

Libraries raise what is no Exception at what they are given: argparse calls `sys.exit`, and what ran an event loop of
asyncio's on a thread may end with its CancelledError. That is one failure more, and no reason to end the process.
"""

import trio


class Escaped(Exception):
    """Something that is no Exception was raised; it is the cause of this."""


def as_failure(error: BaseException) -> Exception | None:
    """Return an error as a failure, the members of a group each; None when Trio's Cancelled is it, or among them.

    None as well for KeyboardInterrupt, and for GeneratorExit, with which Python ends what nobody waits for.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, trio.Cancelled | KeyboardInterrupt | GeneratorExit):
        return None
    if isinstance(error, BaseExceptionGroup):
        members = [member for one in error.exceptions if (member := as_failure(one)) is not None]
        whole = len(members) == len(error.exceptions)
        return ExceptionGroup(error.message, members).with_traceback(error.__traceback__) if whole else None
    failure = Escaped(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure.with_traceback(error.__traceback__)  # which says what task it was


def forget_frames(error: BaseException) -> None:
    """Let go of the frames that an error came through, once it has been told.

    A frame that has the error as a variable keeps it, as it keeps the frame: a circle, with all that was worked on in
    it, which only the garbage collector opens, and that one stops the loop.
    """
    error.__traceback__ = None
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for other in (*members, error.__cause__, error.__context__):
        if other is not None and other.__traceback__ is not None:
            forget_frames(other)
