"""The samples of a grey radiograph of more than 8 bits are kept beside the 8 bits that are made of them."""

import io

import numpy as np
import pytest
from PIL import Image

from fracture_det.structures.radiograph import Radiograph, read_radiograph
from fracture_det.structures.samples import GreySamples, bits_of
from tests.structures.tiffs import page, tiff
from tests.webapp.conftest import encoded

RAMP = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) % 4096


def test_a_png_of_16_bits_keeps_every_sample():
    samples = read_radiograph(encoded(RAMP)).samples
    assert np.array_equal(samples.values, RAMP)
    assert samples.bits == 12


def test_the_window_is_that_of_the_8_bits():
    radiograph = read_radiograph(encoded(RAMP))
    low, high = radiograph.samples.window
    windowed = np.clip((RAMP.astype(float) - low) * 255 / (high - low) + 0.5, 0, 255).astype(np.uint8)
    assert np.abs(windowed.astype(int) - radiograph.pixels[:, :, 0]).max() <= 1  # float32 there


def test_of_one_value_the_window_is_not_empty():
    assert read_radiograph(encoded(np.full((20, 20), 700, np.uint16))).samples.window == (700, 701)


def test_they_are_turned_upright_with_the_pixels():
    image = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    turned = read_radiograph(file.getvalue())
    assert turned.samples.values.shape == turned.size == (80, 60)
    assert np.array_equal(turned.samples.values, np.rot90(RAMP, -1))


def test_what_is_transparent_is_black():
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, "PNG", transparency=4000)
    values = read_radiograph(file.getvalue()).samples.values
    assert values[RAMP == 4000].max() == 0
    assert np.array_equal(values[RAMP != 4000], RAMP[RAMP != 4000])


def test_where_white_is_zero_they_are_as_bright_as_bone_is():
    data = tiff(page(65_535 - RAMP, bits=16, photometric=0))
    samples = read_radiograph(data, formats=("TIFF",)).samples
    assert np.array_equal(samples.values, RAMP)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_of_8_bits_there_are_none(kind):
    assert read_radiograph(encoded((RAMP >> 4).astype(np.uint8), kind)).samples is None


@pytest.mark.parametrize(("largest", "bits"), [(0, 9), (300, 9), (1023, 10), (4095, 12), (4096, 13), (65_535, 16)])
def test_how_many_bits_are_used(largest, bits):
    assert bits_of(np.array([[0, largest]], np.uint16)) == bits


@pytest.mark.parametrize(
    ("values", "bits", "window", "said"),
    [
        (RAMP.astype(np.int32), 12, (0, 9), "expected .* uint16, got .* int32"),
        (RAMP[0], 12, (0, 9), r"expected \(H, W\)"),
        (RAMP, 8, (0, 9), "bits: expected 9 to 16, got 8"),
        (RAMP, 12, (9, 9), "window: expected low < high, got 9, 9"),
        (RAMP, 12, (0, np.inf), "window: expected low < high"),
    ],
)
def test_impossible_samples_are_refused(values, bits, window, said):
    with pytest.raises(ValueError, match=said):
        GreySamples(values, bits, window)


@pytest.mark.parametrize("spacing_mm", [(0.1, 0), (-0.1, 0.1), (np.nan, 0.1), (0.1, np.inf)])
def test_an_impossible_size_of_a_pixel_is_refused(spacing_mm):
    with pytest.raises(ValueError, match="spacing_mm: expected two numbers above 0"):
        Radiograph(np.zeros((2, 3, 3), np.uint8), spacing_mm)


def test_samples_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"samples: expected \(2, 3\) values, got \(60, 80\)"):
        Radiograph(np.zeros((2, 3, 3), np.uint8), samples=GreySamples(RAMP, 12, (0, 9)))
