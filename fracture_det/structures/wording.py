"""Words of messages and reports that depend on a number."""

from __future__ import annotations


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """Return "1 box", "2 boxes", "12,345 boxes"."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"
