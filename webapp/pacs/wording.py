"""The sentences of an answer that every output shares."""

from __future__ import annotations

from fracture_det.structures.wording import percent

from .answers import Box, ImageResult


def headline(result: ImageResult) -> str:
    """Return the finding with its probability, where there is one, or why there is no finding."""
    if not result.finding:
        return f"{result.title}: {result.sentence}"
    if result.confidence is None:
        return result.title
    return f"{result.title} ({percent(result.confidence)} probability)"


def type_line(result: ImageResult) -> str:
    """Return the type of fracture that is named, with its probability, or an empty text."""
    if result.type is None:
        return ""
    name, probability = result.type
    return f"Type of fracture: {name} ({percent(probability)} probability). It is only a hint."


def box_text(box: Box, verdict: str) -> str:
    """Return the text beside a box: its number, level and score, and a reader's verdict on it."""
    said = f", reader: {verdict}" if verdict else ""
    return f"{box.number} {box.level} {box.score:.2f}{said}"
