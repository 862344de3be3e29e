"""Calibration: from a detector's raw scores to probabilities, fitted on validation data and kept as a file.

The file, calibration.json, also carries the operating points that were frozen on the same data; see `_File`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from fracture_det.calibration.score_maps import IDENTITY, METHODS, CalibrationError, Floats, ScoreMap, require
from fracture_det.calibration.type_threshold import TypeThreshold
from fracture_det.data.predictions import WEIGHTS_SHA256
from fracture_det.structures.detections import Detections
from fracture_det.structures.strict_json import convert_json, parse_json

FORMAT = "fracture_det calibration"
VERSION = 1
# Where `fitted_on` keeps the name of the detector whose scores these are; beside it, the SHA-256 of its weights.
DETECTOR = "detector"
# Raw scores by which the image map is read off the box map; even in log odds, where both maps are smooth.
GRID = 1 / (1 + np.exp(-np.linspace(-16, 16, 4001)))
# Follows the name of a detector whose scores are calibrated.
CALIBRATED = ", calibrated ("


@dataclass(frozen=True)
class Calibration:
    """What validation data fixed for one detector: two score maps and the operating points.

    method: one of METHODS.
    box_map: to P(the box hits a marked fracture). image_map: from an image's highest box score to P(the image is
        fractured). Both hold for images like those of the validation data, with their share of fractured ones.
    operating_points: rule -> score on the raw scale. not_reached: rule -> why there is none.
    not_fitted: "box" or "image" -> why its map is the identity.
    fitted_on: the data and the detector it was fitted on, as text and SHA-256s; it names at least the `detector`.
    types: the confidence from which a type of fracture is told; None of a detector that tells none.
    """

    method: str
    box_map: ScoreMap
    image_map: ScoreMap
    operating_points: Mapping[str, float] = field(default_factory=dict)
    not_reached: Mapping[str, str] = field(default_factory=dict)
    not_fitted: Mapping[str, str] = field(default_factory=dict)
    fitted_on: Mapping[str, str] = field(default_factory=dict)
    types: TypeThreshold | None = None

    def __post_init__(self) -> None:
        require(self.method in METHODS, "method", f"one of {', '.join(METHODS)}", self.method)
        require(not set(self.not_fitted) - {"box", "image"}, "not_fitted", "box and image", list(self.not_fitted))
        for name, score_map in (("box", self.box_map), ("image", self.image_map)):
            expected = IDENTITY if name in self.not_fitted else self.method
            require(score_map.method == expected, f"{name}.method", repr(expected), score_map.method)
        for rule, score in self.operating_points.items():
            require(0 <= score <= 1, f"operating_points.{rule}", "0..1", score)
        name = self.fitted_on.get(DETECTOR, "")
        require(name != "" and CALIBRATED not in name, f"fitted_on.{DETECTOR}", "the name of one with raw scores", name)

    def box(self, scores: ArrayLike) -> Floats:
        """Return P(the box hits a marked fracture) of raw box scores (...)."""
        return self.box_map(scores)

    def image(self, scores: ArrayLike) -> Floats:
        """Return P(the image is fractured) of the highest raw box score of images (...), 0 without a box."""
        return self.image_map(scores)

    def apply(self, detections: Detections) -> Detections:
        """Return the detections with calibrated box scores, in the same order; ties that the map makes keep theirs."""
        # The last bit of a logarithm may turn two neighbours around; their order is known.
        scores = np.minimum.accumulate(self.box(detections.scores)).astype(np.float32)
        return replace(detections, scores=scores)

    def image_probability(self, detections: Detections) -> float:
        """Return the probability (0..1) that an image with these detections, of `apply`, shows a fracture.

        The image map is of the highest raw score, which is found again through the box map: both only rise.
        """
        if not len(detections):
            return float(self.image(0.0))
        return float(np.interp(float(detections.scores[0]), self.box(GRID), self.image(GRID)))

    def name_for(self, name: str) -> str:
        """Return the name of the detector `name` once its scores are calibrated."""
        return f"{name}{CALIBRATED}{self.method})"

    def check_detector(self, name: str, sha256: str | None) -> None:
        """Raise CalibrationError when this was not fitted on the scores of the detector `name` with weights `sha256`.

        The SHA-256 decides where both sides have one, else the name. Scores are not calibrated twice.
        """
        require(CALIBRATED not in name, DETECTOR, "one with raw scores", name)
        fitted = self.fitted_on.get(WEIGHTS_SHA256)
        if fitted and sha256:
            require(fitted == sha256, f"fitted_on.{WEIGHTS_SHA256}", f"{sha256} ({name})", fitted)
        else:
            require(self.fitted_on[DETECTOR] == name, f"fitted_on.{DETECTOR}", repr(name), self.fitted_on[DETECTOR])

    def save(self, path: str | Path) -> None:
        """Write the file; reading it back gives an equal Calibration, and the same bytes when written again."""
        text = json.dumps(self.as_dict(), indent=1, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")

    def as_dict(self) -> dict[str, Any]:
        """Return what a file holds, ready for JSON."""
        content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        content |= {field.name.removesuffix("_map"): getattr(self, field.name) for field in fields(self)}
        content |= {name: asdict(content[name]) for name in ("box", "image")}
        content |= {"types": asdict(self.types)} if self.types is not None else {}
        content |= {name: dict(value) for name, value in content.items() if isinstance(value, Mapping)}
        return {name: value for name, value in content.items() if value is not None}

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file. Raises CalibrationError naming file, field and value."""
        try:
            return _read(parse_json(Path(path).read_bytes()))
        except OSError as error:
            raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise CalibrationError(f"{path}: {error}") from error


class _Map(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A score map as the file holds it; see ScoreMap."""

    method: str
    slope: float
    offset: float
    knots: tuple[tuple[float, float], ...]
    zero: float | None

    def score_map(self, name: str) -> ScoreMap:
        """Return the map. Raises CalibrationError naming field and value."""
        try:
            return ScoreMap(**msgspec.structs.asdict(self))
        except CalibrationError as error:
            raise CalibrationError(f"{name}.{error}") from error


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of calibration.json; every field must be there, but for `types`."""

    format: str
    version: int
    method: str
    box: _Map
    image: _Map
    operating_points: dict[str, float]
    not_reached: dict[str, str]
    not_fitted: dict[str, str]
    fitted_on: dict[str, str]
    types: TypeThreshold | None = None


def _read(content: Any) -> Calibration:
    # First, since a file of another version may have other fields.
    known = content if isinstance(content, dict) else {"format": FORMAT, "version": VERSION}
    require(known.get("format") == FORMAT, "format", repr(FORMAT), known.get("format"))
    require(known.get("version") == VERSION, "version", f"{VERSION}, which this program reads", known.get("version"))
    file = convert_json(content, _File)
    return Calibration(
        file.method,
        file.box.score_map("box"),
        file.image.score_map("image"),
        file.operating_points,
        file.not_reached,
        file.not_fitted,
        file.fitted_on,
        file.types,
    )
