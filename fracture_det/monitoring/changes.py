"""What a new scanner, or another export, does to radiographs: changes of real ones, to see how soon they are found."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from fracture_det.structures.radiograph import Pixels

Change = Callable[[str, Pixels], Pixels]


def _gamma(exponent: float) -> Change:
    table = (255 * (np.arange(256) / 255) ** exponent + 0.5).astype(np.uint8)
    return lambda name, pixels: table[pixels]


def _inverted(name: str, pixels: Pixels) -> Pixels:
    return 255 - pixels


def _scaled(factor: float) -> Change:
    def scale(name: str, pixels: Pixels) -> Pixels:
        size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(pixels, size, interpolation=kind), dtype=np.uint8)

    return scale


def _blurred(sigma_px: float) -> Change:
    return lambda name, pixels: np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_px), dtype=np.uint8)


def _noisy(sigma: float) -> Change:
    def add(name: str, pixels: Pixels) -> Pixels:
        noise = sigma * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(pixels.shape[:2])
        return np.clip(pixels + noise[:, :, None] + 0.5, 0, 255).astype(np.uint8)

    return add


# By name: (name of the file, pixels) -> pixels, alike for the same file.
CHANGES: Mapping[str, Change] = {
    "gamma 0.7": _gamma(0.7),
    "gamma 1.4": _gamma(1.4),
    "inverted": _inverted,
    "half the size": _scaled(0.5),
    "twice the size": _scaled(2),
    "blur 1 px": _blurred(1.0),
    "noise 4 levels": _noisy(4),
}
