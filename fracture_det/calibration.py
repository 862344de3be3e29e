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
from numpy.typing import ArrayLike, NDArray

from fracture_det.detections import Detections

Floats = NDArray[np.float64]

FORMAT = "fracture_det calibration"
VERSION = 1
# How a map may be fitted, the recommended one first; see `fit_map`.
METHODS = ("platt", "temperature", "isotonic")
DEFAULT_METHOD = METHODS[0]
# The map of scores that nothing could be fitted to.
IDENTITY = "identity"
# Where `fitted_on` keeps the SHA-256 of the weights whose scores these are, and the detector's name.
WEIGHTS, DETECTOR = "weights SHA-256", "detector"
# What follows in the name of a detector whose scores are calibrated.
CALIBRATED = ", calibrated ("
# Softmax in float32 reaches 1, where the logit has no end: scores count as at most 1 - this, and at least this.
EPSILON = 1e-6
MAX_STEPS = 100
NO_RISE = "the scores do not rise with the truth, so that no rising map fits them"
NO_TEMPERATURE = "no temperature fits: the scores say more than .5 of what is mostly false, or less of what is true"


class CalibrationError(ValueError):
    """A calibration cannot be fitted, read or used; the message names the file, the field and the value."""


@dataclass(frozen=True)
class ScoreMap:
    """A map from raw score to probability, both 0..1, that never falls; calling it applies it.

    method: one of METHODS, or IDENTITY for scores left as they are.
    slope, offset: of "platt" and "temperature" (slope 1 / T, offset 0): sigmoid(slope * logit(score) + offset).
    knots: of "isotonic", (score, probability), both rising. Between two the map is linear; below the first and above
        the last it is flat, because the data say no more there, so that scores beyond them become ties.
    zero: the probability of a score of exactly 0, which images without a box have; no other score gets less. None
        where the fitted data held none: 0 then counts as EPSILON.
    """

    method: str
    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    zero: float | None = None

    def __post_init__(self) -> None:
        _check(self.method in (*METHODS, IDENTITY), "method", f"one of {', '.join(METHODS)}", self.method)
        _check(0 < self.slope < np.inf, "slope", "a number above 0", self.slope)
        moved = abs(self.offset) < np.inf if self.method == "platt" else self.offset == 0
        _check(moved, "offset", "a number" if self.method == "platt" else f"0 with {self.method}", self.offset)
        _check(self.zero is None or 0 <= self.zero <= 1, "zero", "0..1", self.zero)
        n_knots = len(self.knots)
        _check(n_knots > 1 if self.method == "isotonic" else n_knots == 0, "knots", "two or more, or none", n_knots)
        if n_knots:
            knots = np.array(self.knots)
            rising = bool((np.diff(knots, axis=0) > 0).all() and knots.min() >= 0 and knots.max() <= 1)
            _check(rising, "knots", "scores and probabilities that rise within 0..1", self.knots)

    def __call__(self, scores: ArrayLike) -> Floats:
        """Return the probability of each raw score (...), in the same shape."""
        raw = np.asarray(scores, dtype=np.float64)
        if self.method == IDENTITY:
            return raw.copy()
        if self.method == "isotonic":
            knots = np.array(self.knots)
            mapped = np.asarray(np.interp(raw, knots[:, 0], knots[:, 1]))
        else:
            mapped = _sigmoid(self.slope * _logit(raw) + self.offset)
        return mapped if self.zero is None else np.where(raw == 0, self.zero, np.maximum(mapped, self.zero))


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

    def name_for(self, name: str) -> str:
        """Return the name under which the detector `name` speaks with calibrated scores."""
        return f"{name}{CALIBRATED}{self.method})"

    def check_detector(self, name: str, sha256: str | None) -> None:
        """Raise CalibrationError when this was not fitted on the scores of the detector `name` with weights `sha256`.

        The SHA-256 decides where both sides have one, else the name. Scores are not calibrated twice.
        """
        _check(CALIBRATED not in name, DETECTOR, "one with raw scores", name)
        fitted = self.fitted_on.get(WEIGHTS)
        if fitted and sha256:
            _check(fitted == sha256, f"fitted_on.{WEIGHTS}", f"{sha256} ({name})", fitted)
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


def _check(right: bool, name: str, expected: str, found: object) -> None:
    if not right:
        raise CalibrationError(f"{name}: expected {expected}, got {found!r}")


# --- the file --------------------------------------------------------------------------------------------------------


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


# --- fitting ---------------------------------------------------------------------------------------------------------


def fit_map(method: str, scores: ArrayLike, truth: ArrayLike) -> ScoreMap:
    """Return the map that validation scores (N,) 0..1 and what came true of them (N,) bool give.

    platt (the default): slope and offset on the logit, by maximum likelihood with Platt's smoothed targets,
        (N+ + 1) / (N+ + 2) and 1 / (N- + 2), with which few or perfectly parted scores stay short of 0 and 1
        (Platt 1999). On the logit it is the logistic recalibration of clinical prediction models (Cox 1958).
    temperature: the slope alone (Guo et al. 2017), with the same targets. Whatever the temperature, a score of .5
        stays .5. The scores of a detector are not centred there: of its boxes of score .5, mostly fewer than half hit.
    isotonic: pool adjacent violators (Ayer et al. 1955), each pooled block a knot at its mean score (centred isotonic
        regression, Oron and Flournoy 2017). Free of any shape, but below about a thousand scores it follows their
        noise (Niculescu-Mizil and Caruana 2005), and its last block says 1 where a handful of boxes all hit.

    Platt is the default because a shown .8 is to mean about 80 %: that takes the offset, which temperature lacks, and
    two numbers can be had from the few hundred boxes of a validation set, of which isotonic needs more.
    Scores of exactly 0 (images without a box) have no logit and are not what a detector says by a low score: their
    probability is (true + 1) / (all + 2) (Laplace), at most that of the lowest score above 0; the rest is fitted apart.

    Raises CalibrationError when the scores above 0 are none, all equal, all true or all false, or do not rise with the
    truth, and for a score outside 0..1.
    """
    raw, true = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    _check(method in METHODS, "method", f"one of {', '.join(METHODS)}", method)
    _check(raw.ndim == 1 and raw.shape == true.shape, "scores", f"one for each of {true.shape} truths", raw.shape)
    outside = raw[~((raw >= 0) & (raw <= 1))]
    _check(not len(outside), "scores", "0..1", outside[:1])
    above = raw > 0
    fitted = _fit(method, raw[above], true[above])
    n_zero = len(raw) - int(above.sum())
    if not n_zero:
        return fitted
    share = (int(true[~above].sum()) + 1) / (n_zero + 2)
    zero = min(share, float(fitted(raw[above].min())))
    return ScoreMap(fitted.method, fitted.slope, fitted.offset, fitted.knots, zero)


def _fit(method: str, scores: Floats, truth: NDArray[np.bool_]) -> ScoreMap:
    n, n_true = len(scores), int(truth.sum())
    if not n:
        raise CalibrationError("there is no score above 0")
    if n_true in (0, n):
        raise CalibrationError(f"of {n} scores above 0 {'none' if not n_true else 'every one'} came true")
    logits = _logit(scores)
    if np.ptp(logits) == 0:
        raise CalibrationError(f"all {n} scores above 0 are {scores[0]:g}")
    if method == "isotonic":
        knots = _pool_adjacent_violators(scores, truth)
        if len(knots) < 2:
            raise CalibrationError(NO_RISE)
        return ScoreMap(method, knots=knots)
    targets = np.where(truth, (n_true + 1) / (n_true + 2), 1 / (n - n_true + 2))
    slope, offset = _fit_logistic(logits, targets, with_offset=method == "platt")
    if slope <= 0:
        raise CalibrationError(NO_RISE if method == "platt" else NO_TEMPERATURE)
    return ScoreMap(method, slope, offset)


def _fit_logistic(logits: Floats, targets: Floats, *, with_offset: bool) -> tuple[float, float]:
    """Return slope and offset (or 0) that minimise the cross-entropy to `targets`, by damped Newton steps."""
    centre = float(logits.mean()) if with_offset else 0.0
    spread = float(abs(logits - centre).max())
    scaled = (logits - centre) / spread
    columns = np.stack([scaled, np.ones(len(scaled))], axis=1)[:, : 1 + with_offset]
    found = np.zeros(columns.shape[1])
    for _ in range(MAX_STEPS):
        shown = _sigmoid(columns @ found)
        gradient = columns.T @ (shown - targets)
        if abs(gradient).max() <= 1e-9 * len(targets):
            slope, offset = float(found[0]) / spread, float(found[1]) if with_offset else 0.0
            return slope, offset - slope * centre
        curvature = (columns * (shown * (1 - shown))[:, None]).T @ columns
        found = _descend(columns, targets, found, np.linalg.solve(curvature, gradient))
    raise CalibrationError(f"no fit after {MAX_STEPS} steps")


def _descend(columns: Floats, targets: Floats, start: Floats, step: Floats) -> Floats:
    """Go back along `step`, by half of it as often as the loss would rise (beyond its last digits)."""
    loss = _cross_entropy(columns @ start, targets)
    while _cross_entropy(columns @ (start - step), targets) > loss * (1 + 1e-12):
        step = step / 2
    return start - step


def _cross_entropy(logits: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).sum())


def _pool_adjacent_violators(scores: Floats, truth: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return (mean score, share that came true) of the blocks of equal share, both strictly rising."""
    values, place = np.unique(scores, return_inverse=True)
    counts = np.bincount(place).tolist()
    trues = np.bincount(place, truth).tolist()
    blocks: list[tuple[float, int, float]] = []  # true, all, sum of scores
    for value, n, true in zip(values.tolist(), counts, trues, strict=True):
        block = (true, n, n * value)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    return tuple((total / n, true / n) for true, n, total in blocks)


def _logit(scores: Floats) -> Floats:
    inside = np.clip(scores, EPSILON, 1 - EPSILON)
    return np.log(inside) - np.log1p(-inside)


def _sigmoid(logits: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * logits))  # without overflow on either side
