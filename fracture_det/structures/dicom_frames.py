"""The stored samples of the one frame of a DICOM file, from any coding that is read.

Uncompressed samples and JPEGs of 8 bits are decoded here, like those of any upload. All other codings go to C++ or Rust
decoders, which were not written for files that mean harm: what a frame says of itself is compared with the data set
first, and then it is decoded in a process of its own (`dicom_decoder`), whose memory and time are limited.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.dicom_elements import EXPLICIT_BIG, Layout
from fracture_det.structures.image_errors import DamagedImage, UnsupportedImage
from fracture_det.structures.jpeg import NEVER_CODED, decode_jpeg, strip_jpeg

JPEG, JPEG_LS, JPEG_2000, RLE = "JPEG", "JPEG-LS", "JPEG 2000", "RLE"
# UIDs of PS3.6, table A-1, without their root. JPEG 2000 with its high-throughput kinds.
ROOT = "1.2.840.10008.1.2."
CODINGS = {
    **dict.fromkeys(("4.50", "4.51", "4.57", "4.70"), JPEG),
    **dict.fromkeys(("4.80", "4.81"), JPEG_LS),
    **dict.fromkeys(("4.90", "4.91", "4.201", "4.202", "4.203"), JPEG_2000),
    "5": RLE,
}
# Of what begins a frame (ISO/IEC 10918-1, table B.1; ISO/IEC 14495-1; ISO/IEC 15444-1, table A.1).
START_OF_FRAME, JPEG_LS_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]", re.DOTALL), b"\xff\xf7"
CODESTREAM = b"\xff\x4f\xff\x51"
MAX_SEGMENTS = 1_000
# What libraries take before the first sample, and a decoder per sample at its worst (JPEG 2000).
DECODER_BYTES, BYTES_PER_SAMPLE = 700_000_000, 16
DECODER_S, S_PER_MEGASAMPLE, WALL_FACTOR = 20, 2, 6
DECODER = Path(__file__).with_name("dicom_decoder.py")
CORRUPT = re.compile(r"^(?:Corrupt JPEG data|Premature end)[^\n]*", re.MULTILINE)
MISSING = 4  # its exit code where a library is not installed

Samples = NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """What the data set says of its pixels (PS3.3, C.7.6.3).

    allocated: bits of a sample in memory, 8 or 16. samples: per pixel, 1 or 3. photometric: as it is stated.
    """

    rows: int
    columns: int
    samples: int
    allocated: int
    photometric: str
    planar: bool = False


def is_compressed(layout: Layout) -> bool:
    """Say whether a decoder is needed."""
    return bool(layout.fragments)


def read_samples(layout: Layout, frame: Frame) -> Samples:
    """Return the samples, (H, W) or (H, W, 3), uint8 or uint16, as they are stored, unused bits included.

    Colours come as RGB. Raises UnsupportedImage for codings that are not read, and DamagedImage where samples are
    missing or the coded frame contradicts the data set.
    """
    if layout.native is not None:
        if frame.photometric in ("YBR_ICT", "YBR_RCT", "YBR_FULL_422"):
            raise UnsupportedImage(f"a DICOM file in the colours {frame.photometric} without compression")
        if layout.syntax.removeprefix(ROOT) in CODINGS:
            raise DamagedImage("its transfer syntax is compressed, its Pixel Data are not")
        return _native(layout, frame)
    coding = CODINGS.get(layout.syntax.removeprefix(ROOT))
    if coding is None:
        raise UnsupportedImage(f"a DICOM file of the transfer syntax {layout.syntax}, whose compression is not read")
    coded = b"".join(layout.data[begin:end] for begin, end in layout.fragments)
    if coding == JPEG and coded_size(coded, coding)[3] == 8 and frame.allocated == 8 and _is_lossy(coded):
        return _baseline(coded, frame)
    precision = check_coded(coded, coding, frame)
    if frame.samples == 3 and coding != RLE and frame.photometric not in ("RGB", "YBR_ICT", "YBR_RCT"):
        raise UnsupportedImage(f"a DICOM file of {coding} in the colours {frame.photometric}, which is not read")
    return _in_rgb(_decode(coded, coding, layout.syntax, frame, precision), frame)


def _native(layout: Layout, frame: Frame) -> Samples:
    begin, end = layout.native or (0, 0)
    count = frame.rows * frame.columns * frame.samples
    needed = count * frame.allocated // 8
    if end - begin < needed:
        raise DamagedImage(
            f"truncated: {end - begin:,} bytes of Pixel Data, {needed:,} are needed for {frame.rows:,} rows of "
            f"{frame.columns:,} pixels"
        )
    if end - begin > needed + 1:  # PS3.5, 8.1.1: padded to an even length
        raise DamagedImage(
            f"{end - begin:,} bytes of Pixel Data, but {frame.rows:,} rows of {frame.columns:,} pixels have {needed:,}"
        )
    big = layout.syntax == EXPLICIT_BIG
    if frame.allocated == 8 and big and layout.pixel_vr == "OW":  # PS3.5, A.3: bytes in words, high byte first
        stored = np.frombuffer(layout.data, np.uint8, (needed + 1) // 2 * 2, begin)
        samples = stored.reshape(-1, 2)[:, ::-1].reshape(-1)[:count]
    else:
        kind = np.uint8 if frame.allocated == 8 else np.dtype(">u2" if big else "<u2")
        samples = np.frombuffer(layout.data, kind, count, begin)
    return _in_rgb(_shaped(samples, frame, planar=frame.planar), frame)


def _shaped(samples: Samples, frame: Frame, *, planar: bool) -> Samples:
    if frame.samples == 1:
        return samples.reshape(frame.rows, frame.columns)
    if planar:
        return np.ascontiguousarray(samples.reshape(frame.samples, frame.rows, frame.columns).transpose(1, 2, 0))
    return samples.reshape(frame.rows, frame.columns, frame.samples)


def _in_rgb(samples: Samples, frame: Frame) -> Samples:
    """Return samples as they are, or RGB of luminance and chrominance (PS3.3, C.7.6.3.1.2)."""
    if frame.photometric != "YBR_FULL":
        return samples
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(samples[:, :, (0, 2, 1)]), cv2.COLOR_YCrCb2RGB), np.uint8)


def _is_lossy(coded: bytes) -> bool:
    """Say whether it is a JPEG of SOF0 to SOF2, which `decode_jpeg` checks to its last byte."""
    found = START_OF_FRAME.search(coded)
    return found is not None and 0xC0 <= coded[found.start() + 1] <= 0xC2


def _baseline(coded: bytes, frame: Frame) -> Samples:
    if not coded.startswith(b"\xff\xd8\xff"):
        raise DamagedImage("its frame does not begin like a JPEG")
    check_coded(coded, JPEG, frame)
    jpeg = strip_jpeg(coded)
    if frame.samples == 3 and frame.photometric == "RGB" and b"Adobe" not in jpeg.data[:1_000]:
        raise UnsupportedImage("a DICOM file with a colour JPEG that is said to be RGB without an Adobe segment")
    return decode_jpeg(jpeg, "L" if frame.samples == 1 else "RGB")


def check_coded(coded: bytes, coding: str, frame: Frame) -> int:
    """Return the precision in bits of a coded frame, having compared what it says with the data set.

    Raises DamagedImage where it is of another size, has other channels or more bits than the data set has room for.
    """
    if coding == RLE:
        segments = int.from_bytes(coded[:4], "little")
        if len(coded) < 64 or segments != frame.samples * frame.allocated // 8:
            raise DamagedImage(f"its RLE frame says that it has {segments:,} segments")
        return frame.allocated
    rows, columns, samples, precision = coded_size(coded, coding)
    if (rows, columns, samples) != (frame.rows, frame.columns, frame.samples):
        raise DamagedImage(
            f"its {coding} frame is of {columns:,} x {rows:,} pixels of {samples}, the data set says "
            f"{frame.columns:,} x {frame.rows:,} of {frame.samples}"
        )
    if not 2 <= precision <= frame.allocated:
        raise DamagedImage(f"its {coding} frame is of {precision} bits, the data set has room for {frame.allocated}")
    return precision


def coded_size(coded: bytes, coding: str) -> tuple[int, int, int, int]:
    """Return rows, columns, samples per pixel and precision in bits that a JPEG, JPEG-LS or JPEG 2000 frame states."""
    return _jpeg_2000_size(coded) if coding == JPEG_2000 else _jpeg_size(coded)


def _jpeg_size(coded: bytes) -> tuple[int, int, int, int]:
    place = 2
    for _ in range(MAX_SEGMENTS if coded.startswith(b"\xff\xd8") else 0):
        while coded[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        if START_OF_FRAME.match(coded, place) or coded.startswith(JPEG_LS_FRAME, place):
            if place + 10 > len(coded):
                break
            rows, columns = (int.from_bytes(coded[at : at + 2], "big") for at in (place + 5, place + 7))
            return rows, columns, coded[place + 9], coded[place + 4]
        if coded[place : place + 1] != b"\xff" or place + 4 > len(coded):
            break
        place += 2 + max(2, int.from_bytes(coded[place + 2 : place + 4], "big"))
    raise DamagedImage("its JPEG frame has no header")


def _jpeg_2000_size(coded: bytes) -> tuple[int, int, int, int]:
    """See ISO/IEC 15444-1, A.5.1; a JP2 wrapper, which DICOM does not have (PS3.5, A.4.4), is refused."""
    if not coded.startswith(CODESTREAM) or len(coded) < 44:
        raise DamagedImage("its JPEG 2000 frame does not begin with a codestream")
    right, bottom, left, top, tile_width, tile_height = (
        int.from_bytes(coded[at : at + 4], "big") for at in range(8, 32, 4)
    )
    channels = int.from_bytes(coded[40:42], "big")
    if len(coded) < 42 + 3 * channels or not (0 <= left < right and 0 <= top < bottom):
        raise DamagedImage("its JPEG 2000 frame contradicts itself")
    depths = {(coded[at] & 0x7F) + 1 for at in range(42, 42 + 3 * channels, 3)}
    steps = {coded[at + 1 : at + 3] for at in range(42, 42 + 3 * channels, 3)}
    if len(depths) != 1 or steps != {b"\1\1"}:
        raise UnsupportedImage("a DICOM file whose JPEG 2000 channels differ in depth or size, which is not read")
    if not tile_width or not tile_height or -(-right // tile_width) * -(-bottom // tile_height) > 65_535:
        raise DamagedImage("its JPEG 2000 frame contradicts itself")
    return bottom - top, right - left, channels, depths.pop()


def _decode(coded: bytes, coding: str, syntax: str, frame: Frame, precision: int) -> Samples:
    container = 8 if precision <= 8 else 16
    count = frame.rows * frame.columns * frame.samples
    cpu_s = DECODER_S + S_PER_MEGASAMPLE * count // 1_000_000
    request = {
        "path": [entry for entry in sys.path if entry],
        "codec": {JPEG_2000: "jpeg2000", RLE: "rle"}.get(coding, "jpeg"),
        "syntax": syntax,
        "rows": frame.rows,
        "columns": frame.columns,
        "samples": frame.samples,
        "container": container,
        "precision": precision,
        "photometric": frame.photometric,
        "bytes": DECODER_BYTES + BYTES_PER_SAMPLE * count,
        "seconds": cpu_s,
    }
    command = [sys.executable, "-I", str(DECODER), json.dumps(request)]
    try:
        done = subprocess.run(command, input=coded, capture_output=True, timeout=cpu_s * WALL_FACTOR, check=False)
    except subprocess.TimeoutExpired as error:
        raise DamagedImage(f"its {coding} frame could not be decoded within {cpu_s * WALL_FACTOR} s") from error
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode == MISSING:
        raise UnsupportedImage(
            f"a DICOM file with a {coding} frame, for which a decoder is missing; `pip install 'fracture_det[dicom]'` "
            "adds it"
        )
    if done.returncode or CORRUPT.search(said):
        raise DamagedImage(f"its {coding} frame is damaged or incomplete")
    if len(done.stdout) != count * container // 8:
        raise DamagedImage(f"{NEVER_CODED} ({len(done.stdout):,} of {count * container // 8:,} bytes)")
    samples = np.frombuffer(done.stdout, np.uint8 if container == 8 else np.dtype("<u2"))
    return _shaped(samples, frame, planar=coding == RLE)
