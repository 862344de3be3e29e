"""The head of an HTTP request, as far as the worker must know it before a thread reads the request."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Larger heads are left to gunicorn, which refuses lines over 4 kB and fields over 8 kB.
MAX_HEAD_BYTES = 32_768
MAX_DIGITS = 18
UPLOADS = re.compile(rb"POST (/|[^\s?]*/api/v1/predictions)(\?\S*)? ")
FORM = b"POST / "  # the page without JavaScript
# Nothing but these, as they have threads that nobody else gets.
PROBES = re.compile(rb"(GET|HEAD) (https?://[^/\s]+)?/(healthz|readyz)(\?\S*)? ")
LENGTHS = re.compile(rb"\r\ncontent-length:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
KEY = re.compile(rb"\r\nidempotency-key:", re.IGNORECASE)


@dataclass(frozen=True)
class RequestHead:
    """What a request is.

    has_key: whether it has an idempotency key. body_bytes: length of its body, None where only its end will tell.
    body_is_missing: some of the body had not arrived with the head. body_is_near: it is short enough to be awaited
    before a thread is spent on it, and the client is not waiting for a word to send it.
    """

    is_upload: bool = False
    is_form: bool = False
    is_probe: bool = False
    has_key: bool = False
    body_bytes: int | None = 0
    body_is_missing: bool = False
    body_is_near: bool = False

    @classmethod
    def of(cls, data: bytes) -> RequestHead | None:
        """Return the head at the beginning of `data`, or None where its end is not there."""
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            return None
        head += b"\r\n"
        count = None if CHUNKED.search(head) else _length(LENGTHS.findall(head))
        is_missing = count is None or len(body) < count
        fits = count is not None and len(head) + 2 + count <= MAX_HEAD_BYTES
        return cls(
            is_upload=UPLOADS.match(head) is not None,
            is_form=head.startswith(FORM),
            is_probe=PROBES.match(head) is not None and count == 0,
            has_key=KEY.search(head) is not None,
            body_bytes=count,
            body_is_missing=is_missing,
            body_is_near=is_missing and fits and not EXPECT.search(head),
        )

    def bytes_at_most(self, largest: int) -> int:
        """Return how long its body may become in memory, where more than `largest` is not accepted."""
        return largest if self.body_bytes is None else min(self.body_bytes, largest)


def _length(values: list[bytes]) -> int | None:
    """Return the length that a head states, 0 without one; None where gunicorn may understand another one."""
    if not values:
        return 0
    is_plain = len(values) == 1 and values[0].isdigit() and len(values[0]) <= MAX_DIGITS
    return int(values[0]) if is_plain else None
