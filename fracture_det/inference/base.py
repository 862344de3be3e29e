"""The protocol that every detector follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels

CARD_FILE = "MODEL_CARD.md"


class DetectorError(ValueError):
    """A detector cannot be opened; the message names the URI and says what to do."""


@runtime_checkable
class Detector(Protocol):
    """Finds fractures on radiographs. `name` and `class_names` say which model speaks."""

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB, boxes in that image's pixels.

        All detections above the detector's own floor are returned; the operating point is applied by the caller.
        """
        ...


def card_beside(path: Path) -> Path | None:
    """Return the model card beside a model's file, or None."""
    card = path.with_name(CARD_FILE)
    return card if card.is_file() else None
