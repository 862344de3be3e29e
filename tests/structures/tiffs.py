"""TIFF files written by hand, of every depth, byte order and photometric interpretation."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

NONE, LZW, JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773


def tiff(*pages: tuple[dict[int, object], list[bytes]], order: str = "<", big: bool = False) -> bytes:
    """Return a TIFF of pages of (tags, strips or tiles); offsets and sizes are added to the tags."""
    offset = "Q" if big else "I"
    head = (b"II" if order == "<" else b"MM") + (
        struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else struct.pack(f"{order}HI", 42, 0)
    )
    data, link = bytearray(head), len(head) - (8 if big else 4)
    for tags, strips in pages:
        places = []
        for strip in strips:
            places.append(len(data))
            data += strip + bytes(len(strip) % 2)
        tiled = 322 in tags
        tags = {**tags, (324 if tiled else 273): places, (325 if tiled else 279): [len(strip) for strip in strips]}
        entries = b""
        for tag in sorted(tags):
            values = tags[tag] if isinstance(tags[tag], (list, tuple)) else [tags[tag]]
            code, kind = ("I", 4) if tag in (273, 279, 324, 325) else ("H", 3)
            packed = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(packed) > (8 if big else 4):
                place = len(data)
                data += packed + bytes(len(packed) % 2)
                packed = struct.pack(f"{order}{offset}", place)
            entries += struct.pack(f"{order}HH{offset}", tag, kind, len(values)) + packed.ljust(8 if big else 4, b"\0")
        struct.pack_into(f"{order}{offset}", data, link, len(data))
        data += struct.pack(f"{order}{'Q' if big else 'H'}", len(tags)) + entries
        link = len(data)
        data += bytes(8 if big else 4)
    return bytes(data)


def page(
    samples: np.ndarray,
    *,
    bits: int,
    photometric: int | None,
    order: str = "<",
    compression: int = NONE,
    tile: int = 0,
    planar: int = 1,
    rows: int = 0,
    **more: object,
) -> tuple[dict[int, object], list[bytes]]:
    """Return a page of `samples`, (H, W) or (H, W, S) of the type that is written (whole numbers for `bits` below 8).

    more: further tags, as t338=2.
    """
    height, width = samples.shape[:2]
    depth = samples.shape[2] if samples.ndim == 3 else 1
    format_ = {"i": 2, "f": 3}.get(samples.dtype.kind, 1)
    tags: dict[int, object] = {256: width, 257: height, 258: [bits] * depth, 259: compression, 277: depth, 284: planar}
    tags |= {339: [format_] * depth, **{int(name[1:]): value for name, value in more.items()}}
    if photometric is not None:
        tags[262] = photometric
    planes = [samples] if planar == 1 else [samples[:, :, index] for index in range(depth)]
    if tile:
        tags |= {322: tile, 323: tile}
        parts = [
            np.pad(part, [(0, tile - part.shape[0]), (0, tile - part.shape[1])] + [(0, 0)] * (part.ndim - 2))
            for plane in planes
            for y in range(0, height, tile)
            for x in range(0, width, tile)
            for part in [plane[y : y + tile, x : x + tile]]
        ]
    else:
        rows = rows or height
        tags[278] = rows
        parts = [plane[y : y + rows] for plane in planes for y in range(0, height, rows)]
    packed = [_bytes(part, bits, order) for part in parts]
    return tags, [zlib.compress(part) for part in packed] if compression == DEFLATE else packed


def _bytes(samples: np.ndarray, bits: int, order: str) -> bytes:
    if bits in (8, 16, 32, 64):
        return samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    rows = samples.reshape(samples.shape[0], -1, 1).astype(np.uint32)
    flat = ((rows >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1).astype(np.uint8)
    return np.packbits(flat.reshape(samples.shape[0], -1), axis=1).tobytes()


def by_pillow(samples: np.ndarray, compression: str, *, white_is_zero: bool = False) -> bytes:
    """Return what Pillow and libtiff write, its photometric interpretation changed where white is zero."""
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "TIFF", compression=compression)
    data = buffer.getvalue()
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    if white_is_zero:
        assert data.count(entry) == 1
        data = data.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    return data
