"""The pixels of an object in the spool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from fracture_det.inference.service import UnreadableImage, encode_png
from fracture_det.structures.radiograph import Pixels


def read_pixels(path: Path) -> Pixels:
    """Return the pixels (H, W, 3) uint8 RGB of an object. Raises UnreadableImage."""
    try:
        ds = dcmread(path)
        values = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(float)
        if values.ndim == 3 and values.shape[2] == 3:
            return np.ascontiguousarray(values.astype(np.uint8))
        if values.ndim != 2:
            raise ValueError("several frames")
        low, high = np.percentile(values, (0.1, 99.9))
        grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
        grey = 1 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey
        return np.dstack([(255 * grey).astype(np.uint8)] * 3)
    except Exception as error:
        raise UnreadableImage("its pixels cannot be read") from error


def upload_of(path: Path) -> bytes:
    """Return what the prediction service reads."""
    return encode_png(read_pixels(path))
