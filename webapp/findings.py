"""From scores to words: the three levels, and the document that API and page share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from flask import url_for

from webapp.store import StoredPrediction

NOTICE = "Research use only. Not a medical device."
# Boxes below it are noise of the detector and are not kept.
FLOOR_SCORE = 0.05
LIKELY, POSSIBLE, WEAK, NONE_SEEN = "likely", "possible", "weak", "none seen"


@dataclass(frozen=True)
class Finding:
    """What is said about a whole radiograph: its level, a headline and a sentence of advice."""

    level: str
    title: str
    advice: str


FINDINGS = {
    LIKELY: Finding(LIKELY, "Fracture likely", "The model marks at least one place at or above its operating point."),
    POSSIBLE: Finding(
        POSSIBLE,
        "Fracture possible",
        "The model marks places, but only below its operating point. Look at them closely.",
    ),
    NONE_SEEN: Finding(
        NONE_SEEN, "No fracture seen", "The model marks no fracture. It misses some, so this does not rule one out."
    ),
}


def floor_score(possible_score: float) -> float:
    """Return the lowest score (0..1) of a box that is kept."""
    return min(FLOOR_SCORE, possible_score)


def level_of(score: float, stored: StoredPrediction) -> str:
    """Return the level of one box: likely, possible, or weak when it is below both thresholds."""
    score = round(score, 6)  # undoes float32: .7 is not to fall below a threshold of .7
    if score >= stored.operating_score:
        return LIKELY
    return POSSIBLE if score >= stored.possible_score else WEAK


def finding_of(stored: StoredPrediction) -> Finding:
    """Return the finding for the whole radiograph. It follows its highest score, whatever boxes are shown."""
    best = float(stored.detections.scores[0]) if len(stored.detections) else 0.0
    level = level_of(best, stored) if len(stored.detections) else NONE_SEEN
    return FINDINGS[NONE_SEEN if level == WEAK else level]


def parse_score(text: str | None, default: float) -> float:
    """Return the threshold (0..1) that a query asks for, or `default` when it asks for none.

    Raises ValueError with a sentence for the user.
    """
    if text is None or not text.strip():
        return default
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise ValueError(f"The score must be a number between 0 and 1, such as {default:.2f}.")
    return score


def document(stored: StoredPrediction, score: float) -> dict[str, Any]:
    """Return the JSON document of a result, with the boxes of at least `score` (0..1)."""
    finding = finding_of(stored)
    self_url = url_for("api.prediction", identifier=stored.id)
    return {
        "ok": True,
        "id": stored.id,
        "created_at": datetime.fromtimestamp(stored.created_at, timezone.utc).isoformat(timespec="seconds"),
        "finding": {"level": finding.level, "title": finding.title, "advice": finding.advice},
        "detections": boxes(stored, score),
        "score": score,
        "operating_score": stored.operating_score,
        "possible_score": stored.possible_score,
        "floor_score": floor_score(stored.possible_score),
        "image": {"height": stored.height, "width": stored.width},
        "model": stored.model,
        "latency_ms": round(stored.latency_ms["total"], 1),
        "stages_ms": {name: round(value, 1) for name, value in stored.latency_ms.items()},
        "notice": NOTICE,
        "links": {
            "self": self_url,
            "image": f"{self_url}/image.png",
            "overlay": f"{self_url}/overlay.png",
            "page": url_for("pages.result", identifier=stored.id),
            "model": url_for("pages.model"),
        },
    }


def boxes(stored: StoredPrediction, score: float) -> list[dict[str, Any]]:
    """Return the boxes of at least `score` (0..1), highest first; `number` is the n-th of all boxes."""
    shown = stored.detections.above(score)
    return [
        {
            "number": number,
            "box_xyxy_px": [round(float(side), 2) for side in box],
            "score": round(float(value), 6),
            "label": label,
            "level": level_of(float(value), stored),
        }
        # `above` keeps the head of the list, as scores descend.
        for number, (box, value, label) in enumerate(
            zip(shown.boxes, shown.scores, stored.labels[: len(shown)], strict=True), start=1
        )
    ]
