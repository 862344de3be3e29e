"""Reading radiographs from files and bytes, and the one letterbox of this project."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

# What a data set may hold; the web page asks for fewer.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
# The largest digital radiography detectors give about 4,000 x 5,000 pixels.
MAX_PIXELS = 64_000_000
EXIF_ORIENTATION_TAG = 0x0112

Pixels = NDArray[np.uint8]


class UnreadableImage(ValueError):
    """The file or the bytes are not an image that can be read; the message says which and why."""


class UnsupportedImage(UnreadableImage):
    """The file or the bytes are of a kind that is not accepted."""


class ImageTooLarge(UnreadableImage):
    """The header announces more pixels than are accepted."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One radiograph, upright.

    pixels: (H, W, 3) uint8 RGB, the EXIF orientation applied.
    spacing_mm: size of a pixel (row, column) in mm, or None where the file does not say (JPEG and PNG never do).
    orientation: the EXIF orientation that was applied; 1 means that the file was upright.
    """

    pixels: Pixels
    spacing_mm: tuple[float, float] | None = None
    orientation: int = 1

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(
                f"Radiograph.pixels: expected (H, W, 3) uint8, got {self.pixels.shape} {self.pixels.dtype}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_radiograph(
    source: str | Path | bytes, *, formats: tuple[str, ...] = IMAGE_FORMATS, max_pixels: int = MAX_PIXELS
) -> Radiograph:
    """Read a radiograph from a path or from the bytes of a file.

    Grey, palette, CMYK and RGB are converted to RGB; transparent pixels are laid over black. Images of more than
    8 bits are stretched linearly so that their 0.1 and 99.9 percentiles become 0 and 255: the files do not say how
    many of their bits are used, and dividing by 256 would show a 12-bit radiograph as black.

    Raises UnsupportedImage (kind not in `formats`), ImageTooLarge (more than `max_pixels`, known from the header,
    before anything is decoded) or UnreadableImage (missing, empty, truncated or broken).
    """
    name = "upload" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            return _decode(image, name, max_pixels)
    except UnreadableImage:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(f"{name}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"{name}: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise UnsupportedImage(f"{name}: not a {', '.join(formats)} image") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        # Pillow raises all of these on broken files.
        raise UnreadableImage(f"{name}: {error}") from error


def _decode(image: Image.Image, name: str, max_pixels: int) -> Radiograph:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(f"{name}: {width} x {height} pixels, at most {max_pixels:,} are read")
    orientation = image.getexif().get(EXIF_ORIENTATION_TAG, 1)
    upright = ImageOps.exif_transpose(image)
    return Radiograph(_to_rgb(upright), orientation=orientation if orientation in range(1, 9) else 1)


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith(("I", "F")):
        grey = _stretch_to_8_bit(np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))


def _stretch_to_8_bit(deep: NDArray) -> NDArray[np.uint8]:
    values = deep.astype(np.float32)
    low, high = np.percentile(values, (0.1, 99.9))
    if high <= low:  # nearly one value: keep its extremes apart
        low, high = float(values.min()), float(values.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.clip((values - low) * scale + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Letterbox:
    """Scaling to fit a square of `size` pixels, aspect ratio kept, zeros to the right and below.

    The only implementation: training, inference and export go through it. Axes are scaled by the exact ratio of
    whole pixel sizes, so that `undo_boxes(apply_boxes(b)) == b`.
    """

    size: int = 800

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"Letterbox.size: expected at least 1 px, got {self.size}")

    def inner_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that an image of `size` (height, width) gets inside the square."""
        height, width = size
        scale = self.size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def apply_image(self, pixels: Pixels, *, out: Pixels | None = None) -> Pixels:
        """Return the (size, size, C) letterboxed image of `pixels` (H, W, C) uint8.

        out: a square of that shape that is zero, to write into.
        """
        height, width = self.inner_size(pixels.shape[:2])
        shrinks = height < pixels.shape[0] or width < pixels.shape[1]
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        square = np.zeros((self.size, self.size, *pixels.shape[2:]), dtype=np.uint8) if out is None else out
        square[:height, :width] = resized.reshape(height, width, *pixels.shape[2:])
        return square

    def apply_boxes(self, boxes: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
        """Map boxes (N, 4) of an image of `size` (height, width) into the letterboxed square."""
        return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * self._scale_xyxy(size)

    def undo_boxes(self, boxes: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
        """Map boxes (N, 4) of the letterboxed square back to the image of `size` (height, width)."""
        return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / self._scale_xyxy(size)

    def _scale_xyxy(self, size: tuple[int, int]) -> NDArray[np.float64]:
        height, width = size
        inner_height, inner_width = self.inner_size(size)
        return np.array([inner_width / width, inner_height / height] * 2)
