"""Logs without anything that a client sent: a request may name a patient in its path, its query or its body."""

from __future__ import annotations

import logging
import traceback

# What gunicorn says of a request that it cannot parse, with fragments of it and the address of its client.
MALFORMED = "Invalid request from"


def where(error: BaseException) -> str:
    """Return the type of `error` and where it was raised, without its message, which may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    name = f"{type(error).__name__} at {places or 'unknown'}"
    return name if cause is None else f"{name}, after {where(cause)}"


class WithoutRequests(logging.Filter):
    """Takes the request out of what gunicorn logs: its address, its fragments, and messages of exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change `record` in place; it is always logged."""
        message = str(record.msg)
        if message.startswith(MALFORMED):
            record.msg, record.args = "A malformed request was refused", ()
        elif record.exc_info and record.exc_info[1] is not None:
            # The arguments of these messages are the method and the address with the query.
            record.args = (message.partition(" %")[0], where(record.exc_info[1]))
            record.msg, record.exc_info = "%s: %s", None
        return True
