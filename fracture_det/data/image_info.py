"""What the pixels and bytes of an image file say: size, orientation, hash and a thumbnail, or why not."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from fracture_det.structures import png
from fracture_det.structures.image_kinds import PILLOW_FORMATS
from fracture_det.structures.orientations import EXIF_ORIENTATIONS
from fracture_det.structures.radiograph import (
    EXIF_ORIENTATION_TAG,
    MAX_PIXELS,
    UnreadableImage,
    read_radiograph,
)

THUMBNAIL_PX = 32
# Files per message to a worker: large enough to hide the messages, small enough for a smooth progress bar.
_CHUNK = 32
# As much of the start and of the end of a file is searched for what stands beside the pixels.
_EDGE_BYTES = 1 << 16
Thumbnail = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImageInfo:
    """What one image file holds.

    file_name: path relative to the image folder, with forward slashes.
    size: (height, width) in pixels of the upright image; None when the image cannot be read.
    orientation: the EXIF orientation, 1 to 8.
    sha256: of the file's bytes.
    thumbnail: (32, 32) uint8, grey, the whole upright image squeezed; also of what is left of a truncated image.
    error: why the image cannot be read, else None. is_dicom: whether it is a DICOM file.
    """

    file_name: str
    size: tuple[int, int] | None
    orientation: int
    sha256: str
    thumbnail: Thumbnail | None
    error: str | None = None
    is_dicom: bool = False

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels as stored in the file, before the EXIF orientation is applied."""
        return self.size[::-1] if self.size and self.orientation >= 5 else self.size


def read_image_info(root: str | Path, file_name: str) -> ImageInfo:
    """Read one image whole and describe it; a broken image gives an ImageInfo with `error`, never an exception."""
    path = Path(root) / file_name
    try:
        data = path.read_bytes()
    except OSError as error:
        return ImageInfo(file_name, None, 1, "", None, error=f"{error.strerror or error}")
    digest = hashlib.sha256(data).hexdigest()
    try:
        radiograph = read_radiograph(data)
    except UnreadableImage as error:
        return ImageInfo(file_name, None, 1, digest, _rest_of(path), error=error.reason)
    grey = cv2.cvtColor(radiograph.pixels, cv2.COLOR_RGB2GRAY)
    is_dicom = radiograph.dicom is not None
    return ImageInfo(file_name, radiograph.size, radiograph.orientation, digest, _squeeze(grey), is_dicom=is_dicom)


def read_upright_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) in pixels of the upright image, from the header and the end of the file where these do.

    The image is decoded only where they do not say it all: where the end is missing, the kind is unknown or the image
    too large, to find the reason; and where another file than a JPEG is rotated. Raises UnreadableImage.
    """
    try:
        with Path(path).open("rb") as file, Image.open(file, formats=PILLOW_FORMATS) as image:
            width, height = image.size
            orientation = 1 if image.format == "PNG" else image.getexif().get(EXIF_ORIENTATION_TAG, 1)
            file.seek(0)
            start = file.read(_EDGE_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _EDGE_BYTES))
            end = file.read()
    except Exception:  # of broken files Pillow raises nearly everything; reading the whole file gives the reason
        return read_radiograph(path).size
    complete = {"JPEG": b"\xff\xd9" in end, "PNG": b"IEND" in end}.get(image.format or "", True)
    if image.format == "PNG":  # its orientation may stand behind the pixels, and Pillow decodes these to find it
        rotated = any(mark in start or mark in end for mark in png.METADATA)
    else:
        rotated = image.format != "JPEG" and orientation != 1
    if not complete or rotated or width * height > MAX_PIXELS:
        return read_radiograph(path).size
    return (width, height) if orientation in EXIF_ORIENTATIONS and orientation >= 5 else (height, width)


def read_image_infos(
    root: str | Path,
    file_names: Sequence[str],
    *,
    workers: int = 1,
    progress: Callable[[Iterable[ImageInfo], int], Iterable[ImageInfo]] | None = None,
) -> list[ImageInfo]:
    """Read many images in `workers` processes; the order is that of `file_names`.

    progress: wraps the stream, given its length (a progress bar).
    """
    show = progress or (lambda stream, _total: stream)
    return list(show(_stream(root, file_names, workers), len(file_names)))


def _stream(root: str | Path, file_names: Sequence[str], workers: int) -> Iterator[ImageInfo]:
    if workers <= 1 or len(file_names) <= _CHUNK:
        yield from (read_image_info(root, name) for name in file_names)
        return
    # spawn: fork is unsafe beside the threads of OpenCV and of a progress bar.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(partial(read_image_info, root), file_names, chunksize=_CHUNK)


def _squeeze(grey: NDArray[Any]) -> Thumbnail:
    return np.asarray(cv2.resize(grey, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _rest_of(path: Path) -> Thumbnail | None:
    """Return the thumbnail of what can be decoded of a truncated image, so that its copies can be found."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.draft("L", (THUMBNAIL_PX * 8, THUMBNAIL_PX * 8))
            return _squeeze(np.asarray(ImageOps.exif_transpose(image).convert("L")))
    except Exception:  # any broken file: there is simply no thumbnail, and the image is reported as unreadable
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
