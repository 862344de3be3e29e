"""Damage to the coded pixels of JPEG and PNG files, as disks and transfers do it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from fracture_det.structures.jpeg import END_OF_IMAGE, SCAN_END

Damage = Callable[[bytes, np.random.Generator], bytes]


def zeroed(coded: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with a stretch of zeros."""
    begin, size = stretch(coded, rng)
    return coded[:begin] + bytes(size) + coded[begin + size :]


def cut(coded: bytes, rng: np.random.Generator) -> bytes:
    """Return the beginning of the bytes."""
    return coded[: int(len(coded) * rng.uniform(0.05, 0.95))]


def swapped(coded: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with two stretches in each other's place."""
    first, size = stretch(coded, rng)
    second = int(rng.integers(first + size, len(coded) - size + 1))
    between = coded[first + size : second]
    return (
        coded[:first] + coded[second : second + size] + between + coded[first : first + size] + coded[second + size :]
    )


def repeated(coded: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with a stretch that is overwritten by the one before it."""
    begin, size = stretch(coded, rng)
    return coded[: begin + size] + coded[begin : begin + size] + coded[begin + 2 * size :]


def stretch(coded: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Return where a stretch begins and its size, a hundredth to a fifth of the bytes; twice its size fits behind."""
    size = int(rng.integers(max(8, len(coded) // 100), len(coded) // 5))
    return int(rng.integers(0, len(coded) - 2 * size)), size


def in_jpeg(data: bytes, damage: Damage, rng: np.random.Generator, *, with_end: bool = True) -> bytes:
    """Return a JPEG with damage in one of its scans of 100 bytes or more.

    with_end: the end marker is there however the scan ends.
    """
    scans = [(begin, end) for begin, end in _scans(data) if end - begin >= 100]
    begin, end = scans[rng.integers(len(scans))]
    harmed = damage(data[begin:end], rng)
    if damage is cut:  # of a file whatever follows is lost
        return data[:begin] + harmed + (END_OF_IMAGE if with_end else b"")
    return data[:begin] + harmed + data[end:]


def _scans(data: bytes) -> Iterator[tuple[int, int]]:
    place = 2
    while data[place + 1] != END_OF_IMAGE[1]:
        begin = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        is_scan, place = data[place + 1] == 0xDA, begin
        if is_scan:
            place = SCAN_END.search(data, place).start()
            yield begin, place


def in_png(data: bytes, damage: Damage, rng: np.random.Generator, *, with_end: bool = True) -> bytes:
    """Return a PNG with damage in its compressed pixels, in one chunk with a right checksum.

    with_end: IEND is there however the pixels end.
    """
    place, packed = 8, b""
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"IDAT":
            packed += data[place + 8 : place + 8 + size]
        place += 12 + size
    kind, harmed = b"IDAT", damage(packed, rng)
    chunk = struct.pack(">I", len(harmed)) + kind + harmed + struct.pack(">I", zlib.crc32(kind + harmed))
    return data[:33] + chunk + (data[-12:] if with_end else b"")


# What happens to coded pixels, and whether the end of the file is there all the same.
DAMAGES: dict[str, tuple[Damage, bool]] = {
    "zeroed": (zeroed, True),
    "cut": (cut, False),
    "cut, with an end": (cut, True),
    "swapped": (swapped, True),
    "repeated": (repeated, True),
}
