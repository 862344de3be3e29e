"""What one image file holds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fracture_det.data.image_info import read_image_info
from fracture_det.structures.orientations import EXIF_ORIENTATIONS, orient_boxes
from fracture_det.structures.radiograph import read_radiograph


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_the_pixels_do(tmp_path, orientation):
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[8:24, 16:32] = 255  # y 8..24, x 16..32
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)

    info = read_image_info(tmp_path, "a.png")
    ((x0, y0, x1, y1),) = orient_boxes(
        [(16, 8, 32, 24)], EXIF_ORIENTATIONS[info.orientation], info.stored_size
    ).tolist()

    assert info.orientation == orientation
    assert info.stored_size == (60, 90)
    upright = read_radiograph(tmp_path / "a.png").pixels
    assert info.size == upright.shape[:2]
    assert upright[y0:y1, x0:x1].min() == 255
    assert upright.sum() == pixels.sum()
