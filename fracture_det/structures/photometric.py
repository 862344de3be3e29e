"""From decoded samples of any depth to RGB in which bone is bright as the file means it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from fracture_det.structures.image_errors import UnreadableImage, UnsupportedImage
from fracture_det.structures.samples import GreySamples, bits_of
from fracture_det.structures.tiff import (
    COMPRESSION,
    CONTIGUOUS,
    EXTRA_SAMPLES,
    OPACITY,
    PHOTOMETRIC,
    PLANAR,
    RGB,
    UNCOMPRESSED,
    UNSIGNED,
    TiffPage,
)

Pixels = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)
BAND_SAMPLES = 1 << 20


def to_rgb(image: Image.Image, data: bytes, *, page: TiffPage | None = None) -> tuple[Pixels, GreySamples | None]:
    """Return the pixels, (H, W, 3) uint8 RGB, of an image that Pillow has opened from `data`, and its grey samples.

    page: what a TIFF said before `single_page`. Transparent pixels are laid over black; more than 8 bits are stretched,
    see `stretch_to_8_bit`. The samples are those of a grey image of 16 bits, else None.

    Raises UnsupportedImage or UnreadableImage where the samples have no certain meaning.
    """
    if _is_deep_colour(image, data, page):
        return _deep_to_rgb(data, page), None
    image.load()
    if image.mode.startswith(("I", "F")):
        return _deep_grey_to_rgb(image, page)
    if image.format in ("JPEG", "MPO") and image.mode == "CMYK" and "adobe" not in image.info:
        raise UnsupportedImage(
            "a CMYK JPEG that does not say whether 0 is ink or paper (no Adobe segment); convert it to grey or RGB"
        )
    if page is not None and page.sample_format != UNSIGNED:
        raise UnsupportedImage(f"{page.describe()}, which is not read; convert it to unsigned numbers")
    if page is not None and page.white_is_zero:
        image = _inverted(image)
    if image.has_transparency_data:
        image = _over_black(image)
    if image.mode == "L":
        return grey_to_rgb(np.asarray(image)), None
    return np.array(image if image.mode == "RGB" else image.convert("RGB")), None


def _is_deep_colour(image: Image.Image, data: bytes, page: TiffPage | None) -> bool:
    """Say whether Pillow has kept only the upper 8 bits of 16, of which a radiograph may use the lower 12."""
    depth = data[24] if image.format == "PNG" else 8 if page is None else page.depth
    return depth == 16 and image.mode not in ("I", "I;16", "I;16B", "I;16L")


def _over_black(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # multiplied with its opacity already, as it is over black
        opacity, laid = image.getchannel(1), image.getchannel(0)
    else:
        rgba = image.convert("RGBA")
        opacity = rgba.getchannel(3)
        laid = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if opacity.getextrema() == (0, 0):
        raise UnreadableImage("every pixel is transparent")
    return laid


def _inverted(image: Image.Image) -> Image.Image:
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "LA":
        return Image.merge("LA", (ImageChops.invert(image.getchannel(0)), image.getchannel(1)))
    if image.mode == "L":
        return ImageChops.invert(image)
    raise UnsupportedImage(
        f"a TIFF in which white is zero, of a mode {image.mode}, which is not read; convert it to PNG"
    )


def grey_to_rgb(grey: Pixels) -> Pixels:
    """Return a grey image, (H, W), as RGB, (H, W, 3)."""
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)  # a tenth of the time of np.repeat


def _deep_grey_to_rgb(image: Image.Image, page: TiffPage | None) -> tuple[Pixels, GreySamples | None]:
    if page is not None and page.order == ">" and page.value(COMPRESSION, UNCOMPRESSED) != UNCOMPRESSED:
        is_plain = page.depth == 16 and page.sample_format == UNSIGNED
        if not is_plain:  # Pillow swaps the bytes of the others once too often
            raise UnsupportedImage(f"{page.describe()}, big-endian, which is not read; convert it to PNG")
    deep = np.asarray(image)
    if page is not None and page.depth == 32 and page.sample_format == UNSIGNED:
        deep = deep.view(np.uint32)  # Pillow has signed ones only
    if deep.dtype.kind == "f" and not np.isfinite(deep).all():
        raise UnreadableImage("some of its samples are not finite numbers")
    is_inverted = page is not None and page.white_is_zero
    transparent = image.info.get("transparency")
    clear = deep == transparent if isinstance(transparent, int) else None
    samples = _samples(deep, clear, is_inverted=is_inverted)
    grey = stretch_to_8_bit(deep)
    if is_inverted:
        grey = 255 - grey
    if clear is not None:
        grey[clear] = 0
    return grey_to_rgb(grey), samples


def _samples(deep: NDArray[Any], clear: NDArray[np.bool_] | None, *, is_inverted: bool) -> GreySamples | None:
    """Return the samples of 16 bits as bright as bone is, those that are `clear` as black; None of another depth."""
    if deep.dtype.kind != "u" or deep.dtype.itemsize != 2:
        return None
    values = deep.astype(np.uint16)  # a copy in this machine's byte order
    low, high = _percentiles(values)
    if is_inverted:
        values = np.iinfo(np.uint16).max - values
        low, high = 65_535 - high, 65_535 - low
    if clear is not None:
        values[clear] = 0
    return GreySamples(values, bits_of(values), (low, max(high, low + 1)))


def _deep_to_rgb(data: bytes, page: TiffPage | None) -> Pixels:
    if page is not None and (page.value(PHOTOMETRIC, RGB) != RGB or page.value(PLANAR, CONTIGUOUS) != CONTIGUOUS):
        raise UnsupportedImage(f"{page.describe()}, which is not read; convert it to PNG")
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
        raise UnreadableImage("16 bits per colour that cannot be decoded")
    if deep.shape[2] == 4:
        # Another extra sample has no meaning, or the colours are multiplied with it already.
        is_opacity = page is None or page.value(EXTRA_SAMPLES, OPACITY) == OPACITY
        if is_opacity and not deep[:, :, 3].any():
            raise UnreadableImage("every pixel is transparent")
        for band in bands(deep) if is_opacity else ():
            colours, opacity = cv2.cvtColor(band, cv2.COLOR_BGRA2BGR), cv2.merge([band[:, :, 3]] * 3)
            band[:, :, :3] = cv2.multiply(colours, opacity, scale=1 / 65_535)
    return stretch_to_8_bit(deep[:, :, 2::-1])


def bands(samples: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield views of rows that together are `samples`, so that what is computed of them takes little memory."""
    rows = max(1, BAND_SAMPLES // max(1, samples[0].size))
    for first in range(0, len(samples), rows):
        yield samples[first : first + rows]


def count_values(samples: NDArray[Any], kinds: int) -> NDArray[np.int64]:
    """Return how often each of the values 0 to `kinds` - 1 occurs, (kinds,)."""
    counts = np.zeros(kinds, np.int64)
    for band in bands(samples):  # since each is widened to 64 bits
        counts += np.bincount(band.reshape(-1), minlength=kinds)
    return counts


def look_up(samples: NDArray[Any], table: NDArray[Number]) -> NDArray[Number]:
    """Return what stands in a table, (kinds,), for samples of any shape and of the values 0 to kinds - 1."""
    found = np.empty(samples.shape, table.dtype)
    for source, target in zip(bands(samples), bands(found), strict=True):
        np.take(table, source, out=target, mode="clip")  # else it would be buffered
    return found


def stretch_to_8_bit(deep: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch samples, (H, W) or (H, W, channels), linearly so that their .1 and 99.9 percentiles become 0 and 255."""
    if deep.dtype == np.uint16:  # by a table of all values, band by band: a sixth of the memory
        low, high = _percentiles(deep)
        return look_up(deep, _stretch(np.arange(65_536, dtype=np.float32), low, high))
    values = deep.astype(np.float32)
    low, high = np.percentile(values, (0.1, 99.9))
    if high <= low:  # nearly one value: keep its extremes apart
        low, high = float(values.min()), float(values.max())
    return _stretch(values, low, high)


def _stretch(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    scale = 255.0 / (high - low) if high > low else 0.0
    stretched: NDArray[np.uint8] = np.clip((values - low) * scale + 0.5, 0, 255).astype(np.uint8)
    return stretched


def _percentiles(deep: NDArray[np.uint16]) -> tuple[float, float]:
    """Return what `np.percentile` says of .1 and 99.9, or the extremes where these are one value."""
    counts = count_values(deep, 65_536)
    below = np.cumsum(counts)
    places = np.array([0.001, 0.999]) * (deep.size - 1)
    under, over = (np.searchsorted(below, edge(places), side="right") for edge in (np.floor, np.ceil))
    low, high = under + (over - under) * (places - np.floor(places))
    if high > low:
        return float(low), float(high)
    values = np.flatnonzero(counts)
    return float(values[0]), float(values[-1])
