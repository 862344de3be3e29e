"""Words of messages and reports that depend on a number."""

from __future__ import annotations


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """Return "1 box", "2 boxes", "12,345 boxes"."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def percent(probability: float) -> str:
    """Return a probability (0..1) as text, never as a certainty or an impossibility."""
    if probability < 0.01:
        return "under 1 %"
    return "over 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"
