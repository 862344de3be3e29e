"""The protocol that every detector follows, and what a detector states about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.data.predictions import WEIGHTS_SHA256
from fracture_det.structures.detections import Detections
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.radiograph import Pixels

CARD_FILE = "MODEL_CARD.md"


class DetectorError(ValueError):
    """A detector cannot be opened; the message names the URI and says what to do."""


@dataclass(frozen=True)
class ModelInput:
    """What a network is fed: uint8 images of `letterbox`, their channels in `colour_order`."""

    letterbox: Letterbox
    colour_order: Literal["RGB", "BGR"] = "RGB"


@dataclass(frozen=True)
class DetectorInfo:
    """What a detector states about itself.

    name: for display; it tells one set of weights from another. class_names: in the order of the class indices.
    sha256: of the weights, or None for a detector without a file. card: its model card (Markdown).
    operating_score: score (0..1) from which a box counts as a finding, or None where none was chosen.
    possible_score: score (0..1) from which a box is worth a look, chosen on validation, or None.
    calibration: what made the scores probabilities; None: they are raw.
    device: what the model runs on, such as "cpu" or a GPU's name; None where the detector does not say.
    input: what the network is fed, or None where it scales images by itself or has members that differ.
    about: what else is needed to reproduce its predictions, as text.
    type_names: what the columns of `Detections.types` are (names of configs/fracture_types.yaml); () without types.
    type_confidence: probability (0..1) below which no type is to be named, chosen on validation, or None.
    type_accuracy: share (0..1) of the types named at or above it, without one of all, that were right on validation, or
    None where that was not measured.
    version: its name in a registry of detectors, or None.

    Raises ValueError for an empty name, no class, or a score, confidence or share outside 0..1.
    """

    name: str
    class_names: tuple[str, ...]
    _: KW_ONLY
    sha256: str | None = None
    card: Path | None = None
    operating_score: float | None = None
    possible_score: float | None = None
    calibration: Calibration | None = None
    device: str | None = None
    input: ModelInput | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    type_names: tuple[str, ...] = ()
    type_confidence: float | None = None
    type_accuracy: float | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("DetectorInfo.name: expected a text, got ''")
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if not self.class_names:
            raise ValueError(f"DetectorInfo.class_names of {self.name}: expected at least one")
        object.__setattr__(self, "type_names", tuple(self.type_names))
        for name in ("operating_score", "possible_score", "type_confidence", "type_accuracy"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"DetectorInfo.{name} of {self.name}: expected 0..1, got {share!r}")

    @property
    def calibrated(self) -> bool:
        """True where scores are probabilities."""
        return self.calibration is not None

    @property
    def score_threshold(self) -> float:
        """The score (0..1) from which a box counts as a finding: the operating score, else the paper's."""
        return PAPER_OPERATING_SCORE if self.operating_score is None else self.operating_score

    @property
    def provenance(self) -> dict[str, str]:
        """What a report or a predictions file states of the detector: the SHA-256 of its weights and `about`."""
        return {**({} if self.sha256 is None else {WEIGHTS_SHA256: self.sha256}), **self.about}


@runtime_checkable
class Detector(Protocol):
    """Finds fractures on radiographs; `info` is all that may be asked about it."""

    @property
    def info(self) -> DetectorInfo: ...

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB, boxes in that image's pixels.

        All detections above the detector's own floor are returned; the operating point is applied by the caller.
        """
        ...


def card_beside(path: Path) -> Path | None:
    """Return the model card beside a model's file, or None."""
    card = path.with_name(CARD_FILE)
    return card if card.is_file() else None
