"""Reading radiographs from files and bytes."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fracture_det.structures.orientations import EXIF_ORIENTATIONS, orient_image

# What a data set may contain; the web page accepts fewer.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
# The largest digital radiography detectors give about 4,000 x 5,000 pixels.
MAX_PIXELS = 64_000_000
# Each scan of a progressive JPEG decodes the whole image, however small the scan; files usually have 10.
MAX_SCANS = 64
# How many parts a file may have: libpng splits pixels every 8 KiB, and a colour profile fills up to 255 segments.
MAX_SEGMENTS, MAX_CHUNKS = 1_000, 100_000
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
# In coded pixels FF is followed by 00, or by a restart marker if a segment announced these (ISO/IEC 10918-1, B.1.1.5).
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# All that is read besides the pixels: the colour coding and the orientation.
JPEG_METADATA = (b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")
PNG_METADATA = (b"eXIf", b"zTXtRaw profile type exif\0", b"tEXtRaw profile type exif\0", b"iTXtXML:com.adobe.xmp\0")
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
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

    Of a JPEG or PNG only the pixels and the orientation are read: profiles, texts, previews and further frames are
    removed unread, and the parts that are read must be few and intact.

    Raises UnsupportedImage (kind not in `formats`), ImageTooLarge (more than `max_pixels`, known from the header,
    before anything is decoded) or UnreadableImage (missing, empty, truncated or broken).
    """
    name = "upload" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        stripped = _strip(data, formats)
        with Image.open(io.BytesIO(stripped), formats=formats) as image:
            return _decode(image, stripped, max_pixels)
    except UnreadableImage as error:
        raise type(error)(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise UnreadableImage(f"{name}: no such file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise UnsupportedImage(f"{name}: not a {', '.join(formats)} image") from error
    except Exception as error:
        # On broken files Pillow raises nearly everything: OSError, SyntaxError, struct.error, AttributeError, ...
        raise UnreadableImage(f"{name}: {error}") from error


def _strip(data: bytes, formats: tuple[str, ...]) -> bytes:
    if data.startswith(JPEG_START) and "JPEG" in formats:
        return _strip_jpeg(data)
    if data.startswith(PNG_START) and "PNG" in formats:
        return _strip_png(data)
    return data


def _strip_jpeg(data: bytes) -> bytes:
    """Return the JPEG without the application segments and comments that are not read, and without trailing data.

    A truncated one is returned as far as it goes: decoding will report what is missing.
    """
    kept, seen, place, scans = [data[:2]], set(), 2, 0
    scan_end = JPEG_MARKER
    for _ in range(MAX_SEGMENTS):
        match = JPEG_MARKER.search(data, place)
        if match is None and not scans:
            raise UnreadableImage("the file ends before its pixels")
        if match is None or (scans and data[match.start() + 1] == 0xD9):
            return b"".join([*kept, b"" if match is None else match[0]])
        place = match.start()
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:  # these have no length
            if scans:  # libjpeg would leave the rest of the image grey
                raise UnreadableImage(f"broken pixels at byte {place:,}")
            place += 2
            continue
        end = place + 2 + max(2, size)
        if marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise UnreadableImage(f"more than {MAX_SCANS} scans")
            after = scan_end.search(data, end)
            end = after.start() if after else len(data)
        if marker == 0xDD and any(data[place + 4 : place + 6]):
            scan_end = SCAN_END
        metadata = next((start for start in JPEG_METADATA if data.startswith(start, place + 4)), None)
        if marker < 0xE0 or (metadata is not None and metadata not in seen):
            kept.append(data[place:end])
            seen.add(metadata)
        place = end
    raise UnreadableImage(f"more than {MAX_SEGMENTS:,} segments")


def _strip_png(data: bytes) -> bytes:
    """Return the PNG without the chunks that are not read. Raises UnreadableImage where a checksum is wrong."""
    kept, seen, place = [data[:8]], set(), 8
    for _ in range(MAX_CHUNKS):
        if place + 12 > len(data):  # truncated, without IEND: decoding will report what is missing
            break
        size, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + size]
        if (
            kind in PNG_CHUNKS
            and len(chunk) == 12 + size
            and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big")
        ):
            raise UnreadableImage(f"wrong checksum of {kind.decode()} at byte {place}")
        metadata = next((start for start in PNG_METADATA if chunk.startswith(start, 4)), None)
        if kind in PNG_CHUNKS or (metadata is not None and metadata not in seen):
            kept.append(chunk)
            seen.add(metadata)
        place += 12 + size
        if kind == b"IEND":
            break
    else:
        raise UnreadableImage(f"more than {MAX_CHUNKS:,} chunks")
    return b"".join(kept)


def _decode(image: Image.Image, data: bytes, max_pixels: int) -> Radiograph:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(f"{width} x {height} pixels, at most {max_pixels:,} are read")
    orientation = image.getexif().get(EXIF_ORIENTATION_TAG, 1)
    if orientation not in EXIF_ORIENTATIONS:
        orientation = 1
    image.load()
    # A PNG with colour or alpha of 16 bits, of which Pillow keeps the upper 8; it has detected truncation by now.
    is_deep = image.format == "PNG" and data[24] == 16 and image.mode in ("RGB", "RGBA")
    if is_deep:
        image.close()  # frees the memory of its pixels
    pixels = _deep_to_rgb(data) if is_deep else _to_rgb(image)
    return Radiograph(orient_image(pixels, EXIF_ORIENTATIONS[orientation]), orientation=int(orientation))


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith(("I", "F")):
        grey = _stretch_to_8_bit(np.asarray(image))
        return _grey_to_rgb(grey)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if image.mode == "L":
        return _grey_to_rgb(np.asarray(image))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_to_rgb(grey: NDArray[np.uint8]) -> Pixels:
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)  # a tenth of the time of np.repeat


def _deep_to_rgb(data: bytes) -> Pixels:
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
        raise UnreadableImage("16 bits per colour that cannot be decoded")
    if deep.shape[2] == 4:
        opacity = cv2.merge([deep[:, :, 3]] * 3)
        deep = cv2.multiply(cv2.cvtColor(deep, cv2.COLOR_BGRA2BGR), opacity, scale=1 / 65_535)
    return _stretch_to_8_bit(deep)[:, :, ::-1]


def _stretch_to_8_bit(deep: NDArray[Any]) -> NDArray[np.uint8]:
    if deep.dtype == np.uint16:  # by a table of all values: a sixth of the memory
        low, high = _percentiles(deep)
        return np.asarray(_stretch(np.arange(65_536, dtype=np.float32), low, high)[deep], np.uint8)
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
    flat = deep.reshape(-1)
    counts = np.zeros(65_536, np.int64)
    for first in range(0, flat.size, 1 << 20):  # in pieces, since each is widened to 64 bits
        counts += np.bincount(flat[first : first + (1 << 20)], minlength=65_536)
    below = np.cumsum(counts)
    places = np.array([0.001, 0.999]) * (flat.size - 1)
    under, over = (np.searchsorted(below, edge(places), side="right") for edge in (np.floor, np.ceil))
    low, high = under + (over - under) * (places - np.floor(places))
    if high > low:
        return float(low), float(high)
    values = np.flatnonzero(counts)
    return float(values[0]), float(values[-1])
