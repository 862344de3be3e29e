"""Reading radiographs from files and bytes."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fracture_det.structures.image_errors import DamagedImage, ImageTooLarge, UnreadableImage, UnsupportedImage
from fracture_det.structures.image_kinds import IMAGE_FORMATS, recognise
from fracture_det.structures.orientations import EXIF_ORIENTATIONS, orient_image
from fracture_det.structures.photometric import Pixels, to_rgb
from fracture_det.structures.tiff import ORIENTATION, TiffPage, single_page

__all__ = [
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "DamagedImage",
    "ImageTooLarge",
    "Pixels",
    "Radiograph",
    "UnreadableImage",
    "UnsupportedImage",
    "read_radiograph",
]

# The largest digital radiography detectors give about 4,000 x 5,000 pixels.
MAX_PIXELS = 64_000_000
# Each scan of a progressive JPEG decodes the whole image, however small the scan; files usually have 10.
MAX_SCANS = 64
# How many parts a file may have: libpng splits pixels every 8 KiB, and a colour profile fills up to 255 segments.
MAX_SEGMENTS, MAX_CHUNKS = 1_000, 100_000
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
# In coded pixels FF is followed by 00, or by a restart marker if a segment announced these (ISO/IEC 10918-1, B.1.1.5).
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# All that is read besides the pixels: the colour coding and the orientation.
JPEG_METADATA = (b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")
PNG_METADATA = (b"eXIf", b"zTXtRaw profile type exif\0", b"tEXtRaw profile type exif\0", b"iTXtXML:com.adobe.xmp\0")
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
EXIF_ORIENTATION_TAG = 0x0112


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

    Grey, palette, CMYK and RGB are converted to RGB; transparent pixels are laid over black, and a TIFF in which white
    is zero is inverted, whatever its depth. Images of more than 8 bits are stretched linearly so that their 0.1 and
    99.9 percentiles become 0 and 255: the files do not say how many of their bits are used, and dividing by 256 would
    show a 12-bit radiograph as black.

    Of a JPEG or PNG only the pixels and the orientation are read: profiles, texts, previews and further frames are
    removed unread, and the parts that are read must be few and intact.

    Raises UnsupportedImage (by its bytes of a kind that is not in `formats`, of a depth or coding that is not read, or
    of several pages), ImageTooLarge (more than `max_pixels`, known from the header,
    before anything is decoded) or UnreadableImage (missing, empty, truncated
    or broken).
    """
    name = "upload" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return _read(data, _accepted_kind(data, formats), max_pixels)
    except UnreadableImage as error:
        raise type(error)(error.reason, name) from error
    except FileNotFoundError as error:
        raise UnreadableImage("no such file", name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(str(error), name) from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("broken header", name) from error
    except Exception as error:
        # On broken files Pillow raises nearly everything: OSError, SyntaxError, struct.error, AttributeError, ...
        raise UnreadableImage(str(error), name) from error


def _accepted_kind(data: bytes, formats: tuple[str, ...]) -> str:
    """Return Pillow's name of the kind of the file. Raises UnsupportedImage or UnreadableImage."""
    if not data.strip(b"\0"):
        raise UnreadableImage("the file holds nothing but zeros" if data else "the file is empty")
    kind = recognise(data)
    if kind is None:
        raise UnsupportedImage(f"not a {_listed(formats)} image")
    if kind.pillow_format not in formats:
        raise UnsupportedImage(f"{kind.name}, which is not read; convert it to PNG or to a JPEG of 8 bits")
    return kind.pillow_format


def _listed(formats: tuple[str, ...]) -> str:
    *others, last = ("WebP" if name == "WEBP" else name for name in formats)
    return f"{', '.join(others)} or {last}" if others else last


def _read(data: bytes, kind: str, max_pixels: int) -> Radiograph:
    page = None
    if kind == "JPEG":
        data = _strip_jpeg(data)
    elif kind == "PNG":
        data = _strip_png(data)
    elif kind == "TIFF":
        single = single_page(data)
        data, page = single.data, single.page
    try:
        opened = Image.open(io.BytesIO(data), formats=(kind,))
    except UnidentifiedImageError as error:
        if page is None:
            raise
        raise UnsupportedImage(f"{page.describe()}, which is not read; convert it to PNG") from error
    with opened as image:
        if kind == "WEBP" and getattr(image, "n_frames", 1) > 1:
            raise UnsupportedImage(
                f"a WebP image of {image.n_frames} frames, of which one is read; save each as a file"
            )
        return _decode(image, data, max_pixels, page)


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


def _decode(image: Image.Image, data: bytes, max_pixels: int, page: TiffPage | None) -> Radiograph:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(f"{width} x {height} pixels, at most {max_pixels:,} are read")
    orientation = image.getexif().get(EXIF_ORIENTATION_TAG, 1) if page is None else page.value(ORIENTATION, 1)
    if orientation not in EXIF_ORIENTATIONS:
        orientation = 1
    image.load()
    pixels = to_rgb(image, data, page=page)
    return Radiograph(orient_image(pixels, EXIF_ORIENTATIONS[orientation]), orientation=int(orientation))
