"""Radiographs as PNG files: their pixels, and their pixels with boxes drawn on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import GreySamples, Pixels, read_radiograph
from fracture_det.visualization.overlay import draw_overlay

# Radiographs are smooth: differences to the row above, by run lengths alone, take a third of the time of the usual
# search among five kinds of differences and for repeats, for files that are no larger.
FAST_PNG = (
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
)


def encode_png(pixels: Pixels) -> bytes:
    """Return pixels (H, W, 3) uint8 RGB as a PNG without metadata; grey ones are stored as grey, without loss."""
    is_grey = bool((pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 0] == pixels[:, :, 2]).all())
    image = np.ascontiguousarray(pixels[:, :, 0]) if is_grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    encoded, png = cv2.imencode(".png", image, FAST_PNG)
    if not encoded:
        raise ValueError(f"OpenCV cannot encode {image.shape} pixels as PNG")
    return png.tobytes()


def encode_samples(samples: GreySamples) -> bytes:
    """Return samples as a grey PNG of 16 bits without metadata, without loss."""
    encoded, png = cv2.imencode(".png", samples.values, FAST_PNG)
    if not encoded:
        raise ValueError(f"OpenCV cannot encode {samples.values.shape} samples as PNG")
    return png.tobytes()


def overlay_png(
    source: Pixels | Path,
    detections: Detections,
    class_names: Sequence[str],
    *,
    minimum_score: float = 0.0,
    longest_px: int | None = None,
    caption: str | None = None,
) -> bytes:
    """Return a PNG of `source` (pixels or an image file) with numbered boxes of at least `minimum_score` (0..1).

    longest_px: its longer side is made that short, if it is longer. caption: written on its upper edge.
    """
    pixels = read_radiograph(source).pixels if isinstance(source, Path) else source
    drawn = draw_overlay(pixels, detections, class_names, minimum_score=minimum_score, caption=caption)
    if longest_px is not None:
        drawn.thumbnail((longest_px, longest_px))
    return _save_png(drawn)


def _save_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Level 1: a fifth of the time of the default for files a tenth larger.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
