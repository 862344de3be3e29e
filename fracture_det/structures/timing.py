"""How long the stages of a prediction took, as figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Milliseconds per image in one stage of prediction."""

    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Timing:
    """How long it took: the only part of a report that differs between equal runs.

    stages: read, preprocess, model, postprocess, draw; of a batch, each image's share. peak_memory_mb: of the process.
    images: how many were timed, failed ones left out. images_per_second: from the file to the boxes, without drawing.
    """

    machine: str
    images: int
    batch_size: int
    images_per_second: float | None
    peak_memory_mb: float | None
    stages: dict[str, Stage]
