"""JPEG files: what is kept of them, and whether every part of the picture was coded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from fracture_det.structures.image_errors import DamagedImage, UnsupportedImage
from fracture_det.structures.seams import has_seam

# Each scan of a progressive JPEG decodes the whole image, however small the scan; files usually have 10.
MAX_SCANS = 64
# A colour profile alone fills up to 255 segments.
MAX_SEGMENTS = 1_000
MARKER = re.compile(rb"\xff[^\x00\xff]")
# In coded pixels FF is followed by 00, or by a restart marker if a segment announced these (ISO/IEC 10918-1, B.1.1.5).
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
END_OF_IMAGE = b"\xff\xd9"
# All that is read besides the pixels: the colour coding and the orientation.
METADATA = (b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")
# What libjpeg says where coded pixels are missing (jerror.h: JWRN_HIT_MARKER, JWRN_JPEG_EOF, JWRN_MUST_RESYNC).
MISSING = ("premature end", "found marker", "Premature end")
NEVER_CODED = "truncated: part of its picture was never coded"
MISPLACED = "parts of its picture are out of place"
# SOF0 and SOF1: the blocks of all colours follow each other from the top left to the bottom right.
SEQUENTIAL = re.compile(rb"\xff[\xc0\xc1]", re.DOTALL)
SURPLUS = "its coded pixels do not end where its picture ends; part of them is out of place"


@dataclass(frozen=True)
class StrippedJpeg:
    """A JPEG without what is not read.

    scan_ends: where the coded pixels of each scan end in `data`.
    """

    data: bytes
    scan_ends: tuple[int, ...]


def strip_jpeg(data: bytes) -> StrippedJpeg:
    """Return a JPEG without the application segments and comments that are not read, and without trailing data.

    A truncated one is returned as far as it goes: `decode_jpeg` reports what is missing. Raises DamagedImage where the
    segments are too many or contradict themselves.
    """
    kept, seen, place = [data[:2]], set(), 2
    length, scan_ends = 2, list[int]()
    scan_end = MARKER
    for _ in range(MAX_SEGMENTS):
        match = MARKER.search(data, place)
        if match is None and not scan_ends:
            raise DamagedImage("truncated: the file ends before its pixels")
        if match is None or (scan_ends and data[match.start() + 1] == END_OF_IMAGE[1]):
            return StrippedJpeg(b"".join([*kept, b"" if match is None else match[0]]), tuple(scan_ends))
        place = match.start()
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:  # these have no length
            if scan_ends:  # libjpeg would leave the rest of the image grey
                raise DamagedImage(f"broken pixels at byte {place:,}")
            place += 2
            continue
        end = place + 2 + max(2, size)
        if marker == 0xDA:
            if len(scan_ends) == MAX_SCANS:
                raise DamagedImage(f"more than {MAX_SCANS} scans")
            after = scan_end.search(data, end)
            end = after.start() if after else len(data)
            scan_ends.append(length + end - place)
        if marker == 0xDD and any(data[place + 4 : place + 6]):
            scan_end = SCAN_END
        metadata = next((start for start in METADATA if data.startswith(start, place + 4)), None)
        if marker < 0xE0 or (metadata is not None and metadata not in seen):
            kept.append(data[place:end])
            length += len(kept[-1])
            seen.add(metadata)
        place = end
    raise DamagedImage(f"more than {MAX_SEGMENTS:,} segments")


def decode_jpeg(jpeg: StrippedJpeg, mode: str) -> NDArray[np.uint8]:
    """Return the pixels, (H, W) or (H, W, channels) uint8, by libjpeg-turbo, which reports what it had to guess.

    mode: of Pillow, "L", "RGB" or "CMYK". The pixels are those of Pillow, bit for bit; CMYK as it is stored.

    Raises UnsupportedImage for a colour subsampling other than 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1 and 4:4:1, which this
    interface of libjpeg-turbo does not have. Raises DamagedImage for every warning of the decoder, where coded pixels
    are left over, and where the picture shows that some are misplaced. libjpeg says only of more left over than it has
    in its buffer, but a scan of which the last byte can be spared has too many.
    """
    pixels = _decode(jpeg.data, "GRAY" if mode == "L" else mode)
    for end in jpeg.scan_ends:
        last = 2 if jpeg.data.endswith(b"\xff\0", 0, end) else 1
        if _can_be_decoded(jpeg.data[: end - last] + END_OF_IMAGE):
            raise DamagedImage(SURPLUS)
    block = coded_block(jpeg.data)
    if block and has_seam(pixels[:, :, min(1, pixels.shape[2] - 1)], block):
        raise DamagedImage(MISPLACED)
    return pixels[:, :, 0] if mode == "L" else pixels


def coded_block(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) in pixels of what a sequential JPEG codes at once; None of a progressive one."""
    place = 2
    while data[place + 1] != 0xDA:
        if SEQUENTIAL.match(data, place):
            count = data[place + 9]
            factors = [data[place + 11 + 3 * number] for number in range(count)]
            if count == 1:
                return 8, 8
            return 8 * max(factor & 15 for factor in factors), 8 * max(factor >> 4 for factor in factors)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _decode(data: bytes, colours: str, **options: Any) -> NDArray[np.uint8]:
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours, strict=True, **options))
    except ValueError as error:
        reason = str(error)
        if "subsampling" in reason:
            raise UnsupportedImage(
                "a JPEG of unusual colour subsampling, which is not read; convert it to PNG or to a JPEG of 8 bits"
            ) from error
        if any(sign in reason for sign in MISSING):
            raise DamagedImage(NEVER_CODED) from error
        raise DamagedImage(SURPLUS if "extraneous bytes" in reason else reason) from error


def _can_be_decoded(data: bytes) -> bool:
    """Say whether all coded pixels are there; at an eighth of the size, which is all entropy decoding."""
    try:
        _decode(data, "GRAY", min_height=1, min_width=1, min_factor=8)
    except DamagedImage:
        return False
    return True
