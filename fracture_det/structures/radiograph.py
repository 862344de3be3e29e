"""Reading radiographs from files and bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fracture_det.structures.dicom import DicomFile, describe_dicom, dicom_bytes, read_dicom
from fracture_det.structures.image_errors import (
    DamagedImage,
    ImageTooLarge,
    UnreadableImage,
    UnsupportedImage,
    check_size,
)
from fracture_det.structures.image_kinds import IMAGE_FORMATS, recognise
from fracture_det.structures.jpeg import decode_jpeg, strip_jpeg
from fracture_det.structures.orientations import EXIF_ORIENTATIONS, orient_image
from fracture_det.structures.photometric import Pixels, grey_to_rgb, to_rgb
from fracture_det.structures.png import SAMPLES, check_rows, png_size, strip_png
from fracture_det.structures.samples import GreySamples
from fracture_det.structures.tiff import ORIENTATION, single_page

__all__ = [
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "DamagedImage",
    "DicomFile",
    "GreySamples",
    "ImageTooLarge",
    "Pixels",
    "Radiograph",
    "UnreadableImage",
    "UnsupportedImage",
    "decoding_bytes",
    "read_dicom_file",
    "read_radiograph",
]

# The largest digital radiography detectors give about 4,000 x 5,000 pixels.
MAX_PIXELS = 64_000_000
DEEP_BYTES = {"I;16": 2, "I;16B": 2, "I;16L": 2, "I": 4, "F": 4}
LARGEST_SAMPLE_BYTES = 8  # 16 bits of red, green, blue and opacity
EXIF_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One radiograph, upright.

    pixels: (H, W, 3) uint8 RGB, the EXIF orientation applied.
    spacing_mm: size of a pixel (row, column) in mm, or None where the file does not say (only DICOM does).
    orientation: the EXIF orientation that was applied; 1 means that the file was upright.
    samples: the grey samples of a file of more than 8 bits, from which `pixels` are windowed; else None.
    dicom: what a DICOM file says of it, such as where the spacing was measured; None of other files.
    """

    pixels: Pixels
    spacing_mm: tuple[float, float] | None = None
    orientation: int = 1
    samples: GreySamples | None = None
    dicom: DicomFile | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(
                f"Radiograph.pixels: expected (H, W, 3) uint8, got {self.pixels.shape} {self.pixels.dtype}"
            )
        if self.spacing_mm is not None and not all(np.isfinite(side) and side > 0 for side in self.spacing_mm):
            raise ValueError(f"Radiograph.spacing_mm: expected two numbers above 0, got {self.spacing_mm}")
        if self.samples is not None and self.samples.values.shape != self.size:
            raise ValueError(f"Radiograph.samples: expected {self.size} values, got {self.samples.values.shape}")

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
    show a 12-bit radiograph as black. Of a grey image of 16 bits, the samples are kept beside the pixels.

    Of a JPEG or PNG only the pixels and the orientation are read: profiles, texts, previews and further frames are
    removed unread, and the parts that are read must be few and intact. A DICOM file is shown as the standard says
    (docs/dicom.md), in the order in which its pixels are stored.

    Raises UnsupportedImage (by its bytes of a kind that is not in `formats`, of a depth or coding that is not read, or
    of several pages), ImageTooLarge (more than `max_pixels` or a side over MAX_SIDE_PX, known from the header, before
    anything is decoded) or UnreadableImage (missing, empty, truncated or broken).
    """
    with _named_errors(source):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return _read(data, _accepted_kind(data, formats), max_pixels)


def read_dicom_file(
    source: str | Path | bytes, *, secret: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> DicomFile:
    """Return what the header of a DICOM radiograph says, without decoding its pixels.

    secret: of the site, for `DicomFile.patient_key`. Raises what `read_radiograph` raises.
    """
    with _named_errors(source):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        _accepted_kind(data, ("DICOM",))
        return describe_dicom(data, max_pixels=max_pixels, secret=secret)


@contextmanager
def _named_errors(source: str | Path | bytes) -> Iterator[None]:
    """Make every error one of image_errors, with the name of the file."""
    name = "upload" if isinstance(source, bytes) else str(source)
    try:
        yield
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


def decoding_bytes(data: bytes, formats: tuple[str, ...] = IMAGE_FORMATS) -> int:
    """Return about how many bytes `read_radiograph` takes at its peak for the same arguments, from the file's header.

    The decoder holds the samples of a PNG twice, and libjpeg the coefficients of a progressive JPEG; then come the
    pixels, (H, W, 3) uint8, and once more where they are turned upright. A file of a known kind whose header cannot be
    read counts as the largest, one of another kind, which is not decoded, as nothing. So does a DICOM file that is
    refused by its header.
    """
    kind = recognise(data)
    if kind is None or kind.format_name not in formats:
        return 0
    if kind.format_name == "DICOM":
        return dicom_bytes(data, MAX_PIXELS)
    try:
        if kind.format_name == "PNG":
            height, width = png_size(data)
            sample_bytes = SAMPLES.get(data[25], 4) * (2 if data[24] == 16 else 1)
        else:
            with Image.open(io.BytesIO(data), formats=(kind.format_name,)) as image:
                height, width = image.height, image.width
                sample_bytes = len(image.getbands()) * DEEP_BYTES.get(image.mode, 1)
    except Exception:  # Pillow raises nearly everything
        return MAX_PIXELS * (2 * LARGEST_SAMPLE_BYTES + 2 * 3)
    return min(height * width, MAX_PIXELS) * (2 * sample_bytes + 2 * 3)


def _accepted_kind(data: bytes, formats: tuple[str, ...]) -> str:
    """Return Pillow's name of the kind of the file. Raises UnsupportedImage or UnreadableImage."""
    if not data.strip(b"\0"):
        raise UnreadableImage("the file holds nothing but zeros" if data else "the file is empty")
    kind = recognise(data)
    if kind is None:
        raise UnsupportedImage(f"not a {_listed(formats)} image")
    if kind.format_name not in formats:
        raise UnsupportedImage(f"{kind.name}, which is not read; convert it to PNG or to a JPEG of 8 bits")
    return kind.format_name


def _listed(formats: tuple[str, ...]) -> str:
    *others, last = ("WebP" if name == "WEBP" else name for name in formats)
    return f"{', '.join(others)} or {last}" if others else last


def _read(data: bytes, kind: str, max_pixels: int) -> Radiograph:
    if kind == "DICOM":
        shown, samples, file = read_dicom(data, max_pixels)
        return Radiograph(shown, file.spacing_mm, samples=samples, dicom=file)
    page, jpeg = None, None
    if kind == "JPEG":
        jpeg = strip_jpeg(data)
        data = jpeg.data
    elif kind == "PNG":
        data = strip_png(data)
        check_size(*png_size(data), max_pixels)
        check_rows(data)  # before Pillow, which does not say as well what is missing
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
        check_size(image.height, image.width, max_pixels)
        if kind == "WEBP" and getattr(image, "n_frames", 1) > 1:
            raise UnsupportedImage(
                f"a WebP image of {image.n_frames} frames, of which one is read; save each as a file"
            )
        orientation = image.getexif().get(EXIF_ORIENTATION_TAG, 1) if page is None else page.value(ORIENTATION, 1)
        if orientation not in EXIF_ORIENTATIONS:
            orientation = 1
        decoded, samples = None if jpeg is None else decode_jpeg(jpeg, image.mode), None
        if decoded is None or image.mode == "CMYK":
            decoded, samples = to_rgb(image, data, page=page)
        pixels = grey_to_rgb(decoded) if decoded.ndim == 2 else decoded
    upright = EXIF_ORIENTATIONS[orientation]
    if samples is not None:  # before the pixels, so that not all of it is in memory twice
        samples = replace(samples, values=orient_image(samples.values[:, :, None], upright)[:, :, 0])
    return Radiograph(orient_image(pixels, upright), orientation=int(orientation), samples=samples)
