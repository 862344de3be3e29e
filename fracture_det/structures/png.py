"""PNG files: what is kept of them, and whether every row was coded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from fracture_det.structures.image_errors import DamagedImage

# libpng splits pixels every 8 KiB.
MAX_CHUNKS = 100_000
# All that is read besides the pixels: the orientation.
METADATA = (b"eXIf", b"zTXtRaw profile type exif\0", b"tEXtRaw profile type exif\0", b"iTXtXML:com.adobe.xmp\0")
CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Colour type -> samples per pixel (PNG, table 11.1).
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The first row, the first column, the step down and the step right of each pass (PNG, 8.2).
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
LAST_FILTER = 4
BLOCK_BYTES = 1 << 20


def strip_png(data: bytes) -> bytes:
    """Return a PNG without the chunks that are not read. Raises DamagedImage where a checksum is wrong."""
    kept, seen, place = [data[:8]], set(), 8
    for _ in range(MAX_CHUNKS):
        if place + 12 > len(data):  # truncated, without IEND: `check_rows` reports what is missing
            break
        size, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + size]
        if kind in CHUNKS and len(chunk) == 12 + size and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise DamagedImage(f"wrong checksum of {kind.decode()} at byte {place}")
        metadata = next((start for start in METADATA if chunk.startswith(start, 4)), None)
        if kind in CHUNKS or (metadata is not None and metadata not in seen):
            kept.append(chunk)
            seen.add(metadata)
        place += 12 + size
        if kind == b"IEND":
            break
    else:
        raise DamagedImage(f"more than {MAX_CHUNKS:,} chunks")
    return b"".join(kept)


def png_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) of a PNG. Raises DamagedImage where it does not begin with its header."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise DamagedImage("truncated: the file ends before its header" if len(data) < 33 else "it has no header")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def check_rows(data: bytes) -> None:
    """Check that a stripped PNG codes every row of its picture, and nothing else.

    Decoders show missing rows as black. Raises DamagedImage where the compressed data are too short, too long or
    contradict their checksum, or a row has a filter that there is not. What is unfolded is never kept, and no more of
    it than the header announces.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if colour not in SAMPLES:
        raise DamagedImage(f"a colour type {colour}, which there is not")
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(height - row) // down), -(-(width - column) // right)) for row, column, down, right in passes]
    # (rows, bytes of a row with its filter)
    layout = [(rows, 1 + (columns * SAMPLES[colour] * depth + 7) // 8) for rows, columns in sizes if rows and columns]
    expected = sum(rows * size for rows, size in layout)
    decoded = 0
    for block in _unfold(b"".join(_payloads(data)), expected):
        _check_filters(np.frombuffer(block, np.uint8), decoded, layout)
        decoded += len(block)
    if decoded < expected:
        missing = f"{height - decoded // layout[0][1]:,} of {height:,} rows" if len(layout) == 1 else "some of its rows"
        raise DamagedImage(f"truncated: {missing} were never coded")


def _payloads(data: bytes) -> Iterator[bytes]:
    place = 8
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            yield data[place + 8 : place + 8 + size]
        place += 12 + size


def _unfold(packed: bytes, expected: int) -> Iterator[bytes]:
    """Yield what was compressed in blocks. Raises DamagedImage where that is more than expected or broken."""
    unpacker, decoded = zlib.decompressobj(), 0
    try:
        while not unpacker.eof:
            block = unpacker.decompress(packed, BLOCK_BYTES)
            packed = unpacker.unconsumed_tail
            if not block and not packed:
                return
            decoded += len(block)
            if decoded > expected:
                raise DamagedImage("it codes more rows than its header announces")
            yield block
    except zlib.error as error:
        raise DamagedImage(f"its compressed pixels are broken ({error})") from error
    if unpacker.unused_data:
        raise DamagedImage("something follows its compressed pixels")


def _check_filters(block: np.ndarray, begin: int, layout: list[tuple[int, int]]) -> None:
    """Check the filter of each row that begins in a block, which begins at byte `begin` of all passes."""
    first = 0
    for rows, size in layout:
        end = first + rows * size
        place = first + -(-max(0, begin - first) // size) * size
        if (
            place < end
            and (block[place - begin : max(0, min(end, begin + len(block)) - begin) : size] > LAST_FILTER).any()
        ):
            raise DamagedImage("a row has a filter that there is not")
        first = end
