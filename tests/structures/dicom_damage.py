"""DICOM files that are broken at random: bytes, lengths, values, ends."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.builders import draw_radiograph
from tests.structures.dicoms import DCMTK, NATIVE, dicom, jpeg_2000, recoded

Damage = Callable[[bytearray, np.random.Generator], bytes]
EXTREMES = (0, 1, 2, 7, 8, 255, 256, 32_767, 32_768, 65_535)
LONG_EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER_BYTES = 1_200


def _flipped(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _flipped_header(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 5))):
        data[128 + int(rng.integers(min(HEADER_BYTES, len(data) - 128)))] = int(rng.integers(256))
    return bytes(data)


def _extreme_word(data: bytearray, rng: np.random.Generator) -> bytes:
    """Replace a word, most of them lengths and numbers, by one at an edge."""
    code, values = ("H", EXTREMES) if rng.random() < 0.6 else ("I", LONG_EXTREMES)
    place = 132 + 2 * int(rng.integers(min(HEADER_BYTES, len(data) - 140) // 2))
    struct.pack_into(f"{rng.choice(['<', '>'])}{code}", data, place, int(rng.choice(values)))
    return bytes(data)


def _extreme_pixels(data: bytearray, rng: np.random.Generator) -> bytes:
    """Replace a word of what describes the pixels (group 0028)."""
    order = b"\x28\0" if data.count(b"\x28\0") > 5 else b"\0\x28"
    places = [at for at in range(132, min(len(data) - 12, 4_000)) if data[at : at + 2] == order]
    place = int(rng.choice(places)) + int(rng.integers(2, 14)) if places else 140
    struct.pack_into("<H", data, min(place, len(data) - 2), int(rng.choice(EXTREMES)))
    return bytes(data)


def _cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: int(rng.integers(len(data)))])


def _without_a_stretch(data: bytearray, rng: np.random.Generator) -> bytes:
    begin = int(rng.integers(len(data)))
    del data[begin : begin + int(rng.integers(1, 200))]
    return bytes(data)


def _repeated(data: bytearray, rng: np.random.Generator) -> bytes:
    begin, size = int(rng.integers(len(data))), int(rng.integers(1, 2_000))
    data[begin:begin] = data[begin : begin + size] * int(rng.integers(1, 20))
    return bytes(data)


def _noise(data: bytearray, rng: np.random.Generator) -> bytes:
    begin = int(rng.integers(132, len(data)))
    size = int(rng.integers(1, 300))
    data[begin : begin + size] = rng.bytes(size)
    return bytes(data)


def _frame(data: bytearray, rng: np.random.Generator) -> bytes:
    """Change bytes near the beginning of the pixels, where a coded frame says what it is."""
    begin = max(data.rfind(b"\xe0\x7f\x10\0"), 0)
    for _ in range(int(rng.integers(1, 6))):
        data[min(begin + int(rng.integers(12, 200)), len(data) - 1)] = int(rng.integers(256))
    return bytes(data)


DAMAGES: dict[str, Damage] = {
    "bits flipped": _flipped,
    "bytes of the header": _flipped_header,
    "an extreme word": _extreme_word,
    "an extreme pixel description": _extreme_pixels,
    "cut off": _cut,
    "a stretch lost": _without_a_stretch,
    "a stretch repeated": _repeated,
    "a stretch of noise": _noise,
    "the beginning of the frame": _frame,
}


def whole_files(folder: Path, *, coded: bool) -> dict[str, bytes]:
    """Return a DICOM file of each coding that can be made here. coded: those for decoders too."""
    film = draw_radiograph(np.random.default_rng(3), fractured=True, size=(153, 121))[0][:, :, 0].copy()
    deep = film.astype(np.uint16) * 16
    attributes = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096, "PixelSpacing": [0.2, 0.2]}
    files = {syntax: dicom(deep, syntax, **attributes) for syntax in NATIVE}
    if not coded:
        return files
    files["jpeg 2000"] = jpeg_2000(deep, "1.2.840.10008.1.2.4.90", **attributes)
    files["jpeg 2000 lossy"] = jpeg_2000(deep, "1.2.840.10008.1.2.4.91", **attributes)
    return files | {coding: recoded(files["explicit"], coding, folder) for coding in DCMTK}
