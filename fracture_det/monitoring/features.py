"""The numbers of a radiograph and of a result that are compared over time, and the fixed bins that count them.

Fixed bins, and not quantiles of a reference, so that counts of days long gone can be compared with any reference. Where
features or edges change, references must be made again, and the stored counts of days be migrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.radiograph import Pixels
from fracture_det.suitability.features import shrink, to_grey

# Noise and sharpness are of the file's own pixels, in its middle; more than this would take longer than the detector.
CROP_PX = 512
INPUT, OUTPUT = "input", "output"
Values = Mapping[str, float]

_GREYS = tuple(range(8, 256, 8))


@dataclass(frozen=True)
class Feature:
    """A number of a radiograph. side: INPUT or OUTPUT. edges: between its bins, ascending; values on one lie above it.

    is_log2: the value is a logarithm to base 2, and is shown as 2 to its power.
    """

    title: str
    side: str
    edges: tuple[float, ...]
    unit: str = ""
    is_log2: bool = False

    @property
    def n_bins(self) -> int:
        """How many bins there are; the first and the last are open."""
        return len(self.edges) + 1


def _steps(low: float, high: float, step: float) -> tuple[float, ...]:
    return tuple(round(low + step * index, 6) for index in range(round((high - low) / step) + 1))


FEATURES: Mapping[str, Feature] = {
    "grey": Feature("Mean grey", INPUT, _GREYS, "of 255"),
    "dark": Feature("Dark greys (5 %)", INPUT, _GREYS, "of 255"),
    "bright": Feature("Bright greys (95 %)", INPUT, _GREYS, "of 255"),
    "contrast": Feature("Contrast (standard deviation)", INPUT, _steps(4, 124, 4), "of 255"),
    "border": Feature("Grey of the border", INPUT, _GREYS, "of 255"),
    "saturated": Feature(
        "Pixels at black or white", INPUT, (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *_steps(0.1, 0.9, 0.05)), "share"
    ),
    "size": Feature("Size", INPUT, _steps(-6, 6, 0.25), "megapixels", is_log2=True),
    "noise": Feature("Noise", INPUT, _steps(-4, 6, 0.25), "grey levels", is_log2=True),
    "sharpness": Feature("Sharpness (fine to coarse detail)", INPUT, _steps(-7, 2, 0.25), "ratio", is_log2=True),
    "limb": Feature("Log-odds of a limb radiograph", INPUT, _steps(-8, 16, 0.5)),
    "score": Feature("Highest score", OUTPUT, _steps(0.05, 0.95, 0.05)),
    "boxes": Feature("Boxes from “possible” up", OUTPUT, _steps(0.5, 9.5, 1)),
}
INPUTS = tuple(name for name, feature in FEATURES.items() if feature.side == INPUT)
OUTPUTS = tuple(name for name, feature in FEATURES.items() if feature.side == OUTPUT)


def picture_values(pixels: Pixels) -> dict[str, float]:
    """Return the values of a radiograph's pixels (H, W, 3) uint8 RGB: the INPUTS but for "limb"."""
    grey = to_grey(shrink(pixels))
    dark, bright = np.quantile(grey, (0.05, 0.95))
    deep = max(2, min(grey.shape) // 16)
    sides = (grey[:deep], grey[-deep:], grey[:, :deep], grey[:, -deep:])
    crop = _middle(pixels)
    noise, sharpness = _detail(crop)
    values = {
        "grey": grey.mean(),
        "dark": dark,
        "bright": bright,
        "contrast": grey.std(),
        "border": np.mean([side.mean() for side in sides]),
        "saturated": ((crop == 0) | (crop == 255)).mean(),
        "size": math.log2(pixels.shape[0] * pixels.shape[1] / 1e6),
        "noise": noise,
        "sharpness": sharpness,
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def limb_value(probability: float) -> float:
    """Return the log-odds of the probability (0..1) that a picture is a radiograph of a limb, within -20 to 20."""
    return round(min(max(math.log(max(probability, 1e-12) / max(1 - probability, 1e-12)), -20.0), 20.0), 4)


def result_values(scores: Sequence[float] | NDArray[np.floating], possible_score: float) -> dict[str, float]:
    """Return the OUTPUTS of a result with boxes of these scores (N,), 0..1; possible_score: where a finding begins."""
    rounded = [round(float(score), 6) for score in scores]  # undoes float32, in which .7 is below .7
    return {"score": max(rounded, default=0.0), "boxes": float(sum(score >= possible_score for score in rounded))}


def bins_of(name: str, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Return in which bin of the feature each of `values` (N,) is counted."""
    return np.searchsorted(FEATURES[name].edges, np.asarray(values, dtype=np.float64), side="right").astype(np.int64)


def _middle(pixels: Pixels) -> NDArray[np.uint8]:
    """Return the green channel (h, w) of at most CROP_PX in the middle."""
    height, width = pixels.shape[:2]
    top, left = max(0, (height - CROP_PX) // 2), max(0, (width - CROP_PX) // 2)
    return np.ascontiguousarray(pixels[top : top + CROP_PX, left : left + CROP_PX, 1])


def _detail(crop: NDArray[np.uint8]) -> tuple[float, float]:
    """Return log2 of the noise in grey levels (Immerkaer 1996), and log2 of the fine detail over the coarse."""
    plane = crop.astype(np.float32)
    second = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    # The median is of noise where the mean would be of edges, which are few.
    noise = float(np.median(np.abs(cv2.filter2D(plane, -1, second)))) / 0.6745 / 6
    low = cv2.GaussianBlur(plane, (0, 0), 1.0)
    lower = cv2.GaussianBlur(plane, (0, 0), 3.0)
    fine, coarse = float(np.abs(plane - low).mean()), float(np.abs(low - lower).mean())
    return math.log2(noise + 2**-5), math.log2((fine + 0.01) / (coarse + 0.01))
