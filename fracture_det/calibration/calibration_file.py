"""Calibration: from a detector's raw scores to probabilities, fitted on validation data and kept as a file.

The file also carries the operating points that were frozen on the same data. It is JSON: `{"format": "fracture_det
calibration", "version": 1, "method", "box", "image", "operating_points", "not_reached", "not_fitted", "fitted_on"}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fracture_det.calibration.score_maps import IDENTITY, METHODS, CalibrationError, Floats, ScoreMap, _check
from fracture_det.data.predictions import WEIGHTS_SHA256
from fracture_det.structures.detections import Detections

FORMAT = "fracture_det calibration"
VERSION = 1
# Where `fitted_on` keeps the name of the detector whose scores these are; beside it, the SHA-256 of its weights.
DETECTOR = "detector"
# Raw scores by which the image map is read off the box map; even in log odds, where both maps are smooth.
GRID = 1 / (1 + np.exp(-np.linspace(-16, 16, 4001)))
# What follows in the name of a detector whose scores are calibrated.
CALIBRATED = ", calibrated ("


@dataclass(frozen=True)
class Calibration:
    """What validation data fixed for one detector: two score maps and the operating points.

    method: one of METHODS.
    box_map: to P(the box hits a marked fracture). image_map: from an image's highest box score to P(the image is
        fractured). Both speak of images like those of the validation data, with their share of fractured ones.
    operating_points: rule -> score on the raw scale. not_reached: rule -> why there is none.
    not_fitted: "box" or "image" -> why its map is the identity.
    fitted_on: what it was fitted on and for whom, in words and SHA-256s; it names at least the `detector`.
    """

    method: str
    box_map: ScoreMap
    image_map: ScoreMap
    operating_points: Mapping[str, float] = field(default_factory=dict)
    not_reached: Mapping[str, str] = field(default_factory=dict)
    not_fitted: Mapping[str, str] = field(default_factory=dict)
    fitted_on: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.method in METHODS, "method", f"one of {', '.join(METHODS)}", self.method)
        _check(not set(self.not_fitted) - {"box", "image"}, "not_fitted", "box and image", list(self.not_fitted))
        for name, score_map in (("box", self.box_map), ("image", self.image_map)):
            expected = IDENTITY if name in self.not_fitted else self.method
            _check(score_map.method == expected, f"{name}.method", repr(expected), score_map.method)
        for rule, score in self.operating_points.items():
            _check(0 <= score <= 1, f"operating_points.{rule}", "0..1", score)
        name = self.fitted_on.get(DETECTOR, "")
        _check(name != "" and CALIBRATED not in name, f"fitted_on.{DETECTOR}", "the name of one with raw scores", name)

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
        return Detections(detections.boxes, scores, detections.classes)

    def image_probability(self, detections: Detections) -> float:
        """Return the probability (0..1) that an image with these detections, of `apply`, shows a fracture.

        The image map is of the highest raw score, which is found again through the box map: both only rise.
        """
        if not len(detections):
            return float(self.image(0.0))
        return float(np.interp(float(detections.scores[0]), self.box(GRID), self.image(GRID)))

    def name_for(self, name: str) -> str:
        """Return the name under which the detector `name` speaks with calibrated scores."""
        return f"{name}{CALIBRATED}{self.method})"

    def check_detector(self, name: str, sha256: str | None) -> None:
        """Raise CalibrationError when this was not fitted on the scores of the detector `name` with weights `sha256`.

        The SHA-256 decides where both sides have one, else the name. Scores are not calibrated twice.
        """
        _check(CALIBRATED not in name, DETECTOR, "one with raw scores", name)
        fitted = self.fitted_on.get(WEIGHTS_SHA256)
        if fitted and sha256:
            _check(fitted == sha256, f"fitted_on.{WEIGHTS_SHA256}", f"{sha256} ({name})", fitted)
        else:
            _check(self.fitted_on[DETECTOR] == name, f"fitted_on.{DETECTOR}", repr(name), self.fitted_on[DETECTOR])

    def save(self, path: str | Path) -> None:
        """Write the file; reading it back gives an equal Calibration, and the same bytes when written again."""
        text = json.dumps(self.as_dict(), indent=1, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")

    def as_dict(self) -> dict[str, Any]:
        """Return what a file holds, ready for JSON."""
        content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        content |= {field.name.removesuffix("_map"): getattr(self, field.name) for field in fields(self)}
        content |= {name: asdict(content[name]) for name in ("box", "image")}
        return content | {name: dict(value) for name, value in content.items() if isinstance(value, Mapping)}

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file. Raises CalibrationError naming file, field and value."""
        try:
            return _read(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
        except ValueError as error:
            raise CalibrationError(f"{path}: not JSON: {error}") from error


def _read(content: object) -> Calibration:
    row = _object(content, "the file")
    _check(row.get("format") == FORMAT, "format", repr(FORMAT), row.get("format"))
    _check(row.get("version") == VERSION, "version", f"{VERSION}, which this program reads", row.get("version"))
    known = {field.name.removesuffix("_map") for field in fields(Calibration)}
    _same_fields(set(row) - {"format", "version"}, known, "the file")
    points = _object(row["operating_points"], "operating_points")
    scores = {rule: _number(score, f"operating_points.{rule}") for rule, score in points.items()}
    texts = [_texts(row[name], name) for name in ("not_reached", "not_fitted", "fitted_on")]
    return Calibration(row["method"], _read_map(row["box"], "box"), _read_map(row["image"], "image"), scores, *texts)


def _read_map(content: object, name: str) -> ScoreMap:
    row = _object(content, name)
    _same_fields(set(row), {field.name for field in fields(ScoreMap)}, name)
    slope, offset = (_number(row[key], f"{name}.{key}") for key in ("slope", "offset"))
    zero = None if row["zero"] is None else _number(row["zero"], f"{name}.zero")
    pairs = row["knots"] if isinstance(row["knots"], list) else [row["knots"]]
    _check(all(isinstance(pair, list) and len(pair) == 2 for pair in pairs), f"{name}.knots", "pairs", row["knots"])
    knots = tuple((_number(x, f"{name}.knots"), _number(y, f"{name}.knots")) for x, y in pairs)
    try:
        return ScoreMap(row["method"], slope, offset, knots, zero)
    except CalibrationError as error:
        raise CalibrationError(f"{name}.{error}") from error


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CalibrationError(f"{name}: expected an object, got {value!r}")
    return value


def _texts(value: object, name: str) -> dict[str, str]:
    row = _object(value, name)
    for key, text in row.items():
        _check(isinstance(text, str), f"{name}.{key}", "a text", text)
    return row


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CalibrationError(f"{name}: expected a number, got {value!r}")
    return float(value)


def _same_fields(found: set[str], wanted: set[str], name: str) -> None:
    _check(found == wanted, name, f"the fields {', '.join(sorted(wanted))}", ", ".join(sorted(found)))
