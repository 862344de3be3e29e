"""How pictures are altered before the head is fitted on them: as phones, screens, messengers and scanners do."""

from __future__ import annotations

import cv2
import numpy as np

from fracture_det.structures.radiograph import Pixels


def alter(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return pixels (H, W, 3) uint8 RGB after a random choice of changes that do not change what they show."""
    pixels = _crop(pixels, rng) if rng.random() < 0.5 else pixels
    pixels = _turn(pixels, rng)
    if rng.random() < 0.4:
        pixels = _resize(pixels, rng)
    if rng.random() < 0.4:
        pixels = _exposure(pixels, rng)
    if rng.random() < 0.15:
        pixels = 255 - pixels
    if rng.random() < 0.2:
        pixels = _tint(pixels, rng)
    if rng.random() < 0.15:
        pixels = _frame(pixels, rng)
    if rng.random() < 0.2:
        pixels = _soften(pixels, rng)
    return _compress(pixels, rng) if rng.random() < 0.5 else np.ascontiguousarray(pixels)


def grey_of(pixels: Pixels) -> Pixels:
    """Return a picture without its colours, (H, W, 3) uint8."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _crop(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    tall, wide = (max(16, round(side * rng.uniform(0.65, 1))) for side in (height, width))
    top, left = rng.integers(0, max(1, height - tall + 1)), rng.integers(0, max(1, width - wide + 1))
    return pixels[top : top + tall, left : left + wide]


def _turn(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    pixels = np.rot90(pixels, rng.choice([0, 0, 0, 1, 2, 3]))
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    if rng.random() > 0.25:
        return pixels
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-12, 12), 1.0)
    border = rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE])
    return np.asarray(cv2.warpAffine(np.ascontiguousarray(pixels), matrix, (width, height), borderMode=int(border)))


def _resize(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    longest = rng.uniform(110, 700)
    scale, stretch = longest / max(height, width), rng.uniform(0.85, 1.18)
    size = (max(64, round(width * scale * stretch)), max(64, round(height * scale)))
    method = int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size, interpolation=method))


def _exposure(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    levels = np.arange(256) / 255
    curve = np.clip(levels ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.2) + rng.uniform(-0.06, 0.1), 0, 1)
    return np.asarray((255 * curve).astype(np.uint8)[pixels])


def _tint(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(pixels * rng.uniform(0.75, 1.0, 3) + rng.uniform(0, 18, 3), 0, 255).astype(np.uint8)


def _frame(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    top, bottom, left, right = (round(rng.uniform(0, 0.1) * side) for side in (height, height, width, width))
    level = float(rng.choice(np.array([0, 0, 255, 255, rng.integers(0, 256)])))
    widths = (top, bottom, left, right)
    return np.asarray(
        cv2.copyMakeBorder(np.ascontiguousarray(pixels), *widths, cv2.BORDER_CONSTANT, value=[level] * 3),
        dtype=np.uint8,
    )


def _soften(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(np.ascontiguousarray(pixels), (0, 0), rng.uniform(0.5, 2)))
    noise = rng.normal(0, rng.uniform(2, 12), pixels.shape[:2])[:, :, None]
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _compress(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    done, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))]
    )
    if not done:
        raise ValueError(f"a picture of {pixels.shape} could not be compressed")
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)
