"""How bad and odd uploads are made: KINDS, by mutation of small JPEG and PNG files and by hand.

Each maker takes a generator of random numbers, and the same numbers give the same bytes.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageCms

# Most files are far smaller than this, and the limit that "too many bytes" is made for.
MAX_BYTES = 1024 * 1024
CREATED, TOO_LARGE, OTHER_KIND, DAMAGED = 201, 413, 415, 422
EXIF_START = b"Exif\0\0"


# The sound files that everything else is made of.


def _plate(rng: np.random.Generator, mode: str = "L") -> Image.Image:
    height, width = rng.integers(8, 97, 2)
    grey = rng.integers(0, 40, (height, width), dtype=np.uint8)
    grey[height // 4 : height // 2, width // 4 : width // 2] = 230
    return Image.fromarray(grey).convert(mode)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpeg(rng: np.random.Generator, mode: str = "", **options: object) -> bytes:
    return _encoded(_plate(rng, mode or rng.choice(["L", "RGB"])), "JPEG", **options)


def _png(rng: np.random.Generator, mode: str = "", **options: object) -> bytes:
    return _encoded(_plate(rng, mode or rng.choice(["L", "RGB"])), "PNG", **options)


def _either(rng: np.random.Generator) -> bytes:
    return _jpeg(rng) if rng.random() < 0.5 else _png(rng)


# Mutations of any bytes.


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def _flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(0, len(changed), int(rng.integers(1, 33)))
    changed[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return changed.tobytes()


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    begin = int(rng.integers(0, len(data)))
    size = int(rng.integers(1, 65))
    return data[:begin] + bytes([int(rng.choice([0, 255]))]) * size + data[begin + size :]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(0, len(data)))
    return data[:place] + rng.bytes(int(rng.integers(1, 65))) + data[place:]


def _shuffle_blocks(data: bytes, rng: np.random.Generator) -> bytes:
    blocks = [data[place : place + 32] for place in range(0, len(data), 32)]
    return b"".join(blocks[index] for index in rng.permutation(len(blocks)))


def _splice(rng: np.random.Generator) -> bytes:
    first, second = _either(rng), _either(rng)
    return first[: len(first) // 2] + second[len(second) // 2 :]


# JPEG: segments.


def _segment(marker: int, payload: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def _after_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def _frame(data: bytes) -> int:
    """Return where the start-of-frame segment begins."""
    return max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))


def _with_size(data: bytes, height: int, width: int) -> bytes:
    place = _frame(data) + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _with_byte(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


def _many_scans(rng: np.random.Generator) -> bytes:
    data = _jpeg(rng, "L", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * min(int(rng.integers(100, 5_000)), MAX_BYTES // 2 // len(last)) + data[-2:]


def _restarts(rng: np.random.Generator) -> bytes:
    data = bytearray(_after_start(_jpeg(rng), _segment(0xDD, struct.pack(">H", int(rng.integers(0, 9))))))
    for place in rng.integers(data.find(b"\xff\xda") + 14, len(data) - 2, 20):
        data[place:place] = bytes([0xFF, 0xD0 + int(rng.integers(0, 8))])
    return bytes(data)


def _ycck(rng: np.random.Generator) -> bytes:
    data = _jpeg(rng, "CMYK")
    place = data.find(b"Adobe")
    return _with_byte(data, place + 11, 2) if place > 0 else data


def _multi_picture(rng: np.random.Generator) -> bytes:
    return _encoded(_plate(rng), "MPO", save_all=True, append_images=[_plate(rng), _plate(rng)])


def _profile(rng: np.random.Generator) -> bytes:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + bytes(12) + made[36:]  # without the time of its making


def _orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def _directory(rng: np.random.Generator) -> bytes:
    """Return an EXIF block whose entries all claim to hold the whole block."""
    entries = [(int(tag), 7, 60_000, 8) for tag in rng.permutation(65_536)[:2_000]]
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return EXIF_START + block.ljust(60_000, b"\0")


# PNG: chunks.


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def _chunks(data: bytes) -> list[bytes]:
    chunks, place = [], 8
    while place < len(data):
        end = place + 12 + struct.unpack_from(">I", data, place)[0]
        chunks.append(data[place:end])
        place = end
    return chunks


def _from_chunks(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _with_chunk(data: bytes, *chunks: bytes) -> bytes:
    head, *rest = _chunks(data)
    return _from_chunks(head, *chunks, *rest)


def _header(width: int, height: int, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def _raw_png(header: bytes, raw: bytes) -> bytes:
    return _from_chunks(header, _chunk(b"IDAT", zlib.compress(raw)), _chunk(b"IEND", b""))


def _wrong_checksum(rng: np.random.Generator, kind: bytes) -> bytes:
    data = _with_chunk(_png(rng), _chunk(b"tEXt", b"Comment\0of no weight"))
    end = data.find(kind) + 4 + struct.unpack_from(">I", data, data.find(kind) - 4)[0]
    return _with_byte(data, end, data[end] ^ 0x55)


def _reordered(rng: np.random.Generator) -> bytes:
    chunks = _chunks(_png(rng, "P"))
    return _from_chunks(*(chunks[index] for index in rng.permutation(len(chunks))))


# The first row, the first column, the step down and the step right of each pass (PNG, 8.2).
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def _interlaced(rng: np.random.Generator) -> bytes:
    pixels = np.asarray(_plate(rng))
    raw = b""
    for row, column, rows, columns in ADAM7:
        part = pixels[row::rows, column::columns]
        raw += b"".join(b"\0" + line.tobytes() for line in part) if part.size else b""
    return _raw_png(_header(pixels.shape[1], pixels.shape[0], interlaced=1), raw)


def _deep(rng: np.random.Generator, *channels: int) -> bytes:
    pixels = rng.integers(0, 4096, (int(rng.integers(8, 65)), int(rng.integers(8, 65)), *channels), dtype=np.uint16)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _animated(rng: np.random.Generator, growth: int = 1) -> bytes:
    first = _plate(rng)
    later = first.rotate(180).resize((growth * first.width, growth * first.height))
    return _encoded(first, "PNG", save_all=True, append_images=[later, first])


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def _text_bomb(rng: np.random.Generator) -> list[bytes]:
    text = _zeros(900_000)
    heads = [b"zTXt%d\0\0", b"iTXt%d\0\1\0\0\0"]
    kinds = [heads[int(rng.integers(0, 2))] % number for number in range(80)]
    return [_chunk(head[:4], head[4:] + text) for head in kinds]


# Other things under the name of an image.


def _archive(_: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("zeros"), bytes(100_000), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


SCRIPT = b"<!doctype html><script>alert(document.domain)</script>"
PDF = b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
ELF = b"\x7fELF\x02\x01\x01" + bytes(200)
JS = b"/*\xff*/alert(1);//"

Maker = Callable[[np.random.Generator], bytes]
KINDS: dict[str, tuple[Maker, frozenset[int]]] = {}


def _kind(name: str, make: Maker, *allowed: int) -> None:
    KINDS[name] = make, frozenset(allowed)


def _register() -> None:
    for name, sound in (("JPEG", _jpeg), ("PNG", _png)):
        mutations = (_cut, _flip_bits, _overwrite, _insert, _shuffle_blocks)
        for mutate in mutations:
            _kind(
                f"{name}: {mutate.__name__.strip('_').replace('_', ' ')}",
                lambda rng, sound=sound, mutate=mutate: mutate(sound(rng), rng),
                CREATED, TOO_LARGE, OTHER_KIND, DAMAGED,
            )  # fmt: skip
        for title, other in (("ZIP", _archive), ("HTML", SCRIPT), ("PDF", PDF), ("JS", JS), ("ELF", ELF)):

            def give(rng: np.random.Generator, other: bytes | Maker = other) -> bytes:
                return other if isinstance(other, bytes) else other(rng)  # fmt: skip

            _kind(f"{name}: {title} behind", lambda rng, s=sound, g=give: s(rng) + g(rng), CREATED)
            _kind(f"{name}: {title} before", lambda rng, s=sound, g=give: g(rng) + s(rng), OTHER_KIND)
        _kind(f"{name}: too many bytes", lambda rng, s=sound: s(rng) + bytes(MAX_BYTES), TOO_LARGE, CREATED)
        _kind(f"{name}: only its start", lambda rng, s=sound: s(rng)[: int(rng.integers(8, 12))], DAMAGED)
        for value in (*range(10), 65_535):
            _kind(f"{name}: orientation {value}", lambda rng, s=sound, v=value: s(rng, exif=_orientation(v)), CREATED)
        _kind(f"{name}: EXIF of noise", lambda rng, s=sound: s(rng, exif=EXIF_START + rng.bytes(99)), CREATED, DAMAGED)
        _kind(
            f"{name}: EXIF cut",
            lambda rng, s=sound: s(rng, exif=_cut(_orientation(6) + bytes(6), rng)),
            CREATED, DAMAGED,
        )  # fmt: skip
        _kind(f"{name}: EXIF of overlaps", lambda rng, s=sound: s(rng, exif=_directory(rng)), CREATED, DAMAGED)
        _kind(f"{name}: ICC", lambda rng, s=sound: s(rng, icc_profile=_profile(rng)), CREATED)
        _kind(f"{name}: ICC of noise", lambda rng, s=sound: s(rng, icc_profile=rng.bytes(300)), CREATED)
        _kind(f"{name}: ICC too long", lambda rng, s=sound: s(rng, icc_profile=rng.bytes(500_000)), CREATED)
    _register_jpeg()
    _register_png()
    _register_others()


def _register_jpeg() -> None:
    _kind("JPEG: progressive", lambda rng: _jpeg(rng, progressive=True), CREATED)
    _kind("JPEG: thousands of scans", _many_scans, DAMAGED)
    _kind("JPEG: restarts", _restarts, CREATED, DAMAGED)
    _kind("JPEG: CMYK", lambda rng: _jpeg(rng, "CMYK"), CREATED)
    _kind("JPEG: YCCK", _ycck, CREATED)
    _kind("JPEG: MPO", _multi_picture, CREATED)
    _kind("JPEG: 1 x 65,500", lambda rng: _encoded(Image.new("L", (1, 65_500), 9), "JPEG"), CREATED)
    _kind("JPEG: 65,500 x 1", lambda rng: _encoded(Image.new("L", (65_500, 1), 9), "JPEG"), CREATED)
    _kind("JPEG: 65,535 x 65,535", lambda rng: _with_size(_jpeg(rng), 65_535, 65_535), TOO_LARGE)
    _kind("JPEG: no height", lambda rng: _with_size(_jpeg(rng), 0, 9), DAMAGED)
    _kind("JPEG: another size", lambda rng: _with_size(_jpeg(rng), *rng.integers(1, 900, 2).tolist()), CREATED, DAMAGED)
    for marker in (*range(0xC1, 0xD0), 0xDE):
        _kind(
            f"JPEG: frame of kind {marker:02X}",
            lambda rng, marker=marker: _with_byte(data := _jpeg(rng), _frame(data) + 1, marker),
            CREATED, OTHER_KIND, DAMAGED,
        )  # fmt: skip
    _kind("JPEG: 12 bits", lambda rng: _with_byte(data := _jpeg(rng), _frame(data) + 4, 12), OTHER_KIND)
    _kind("JPEG: 5,000 segments", lambda rng: _after_start(_jpeg(rng), _segment(0xE5, b"x") * 5_000), DAMAGED)
    _kind(
        "JPEG: EXIF in 40,000 parts",
        lambda rng: _after_start(_jpeg(rng, exif=_orientation(6)), _segment(0xE1, EXIF_START + b"x" * 9) * 40_000),
        DAMAGED,
    )  # fmt: skip
    _kind(
        "JPEG: pictures that overlap",
        lambda rng: _after_start(_jpeg(rng), _segment(0xE2, b"MPF\0" + _directory(rng)[6:])),
        CREATED,
    )
    _kind("JPEG: comment", lambda rng: _after_start(_jpeg(rng), _segment(0xFE, SCRIPT * 900)), CREATED)
    _kind("JPEG: without its end", lambda rng: _jpeg(rng)[:-2], CREATED, DAMAGED)
    _kind("JPEG: padding", lambda rng: _after_start(_jpeg(rng), b"\xff" * 500_000), CREATED, DAMAGED)
    _kind("JPEG: starts over and over", lambda rng: b"\xff\xd8" * 400_000 + b"\xff", DAMAGED)


def _register_png() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        _kind(f"PNG: {mode}", lambda rng, mode=mode: _png(rng, mode), CREATED)
    _kind("PNG: grey of 16 bits", _deep, CREATED)
    _kind("PNG: RGB of 16 bits", lambda rng: _deep(rng, 3), CREATED)
    _kind("PNG: RGBA of 16 bits", lambda rng: _deep(rng, 4), CREATED)
    _kind("PNG: interlaced", _interlaced, CREATED)
    _kind("PNG: animated", _animated, CREATED)
    _kind("PNG: animated, frames larger than the first", lambda rng: _animated(rng, 2), CREATED, DAMAGED)
    _kind("PNG: 1 x 65,535", lambda rng: _encoded(Image.new("L", (1, 65_535), 9), "PNG"), CREATED)
    _kind("PNG: 65,535 x 1", lambda rng: _encoded(Image.new("L", (65_535, 1), 9), "PNG"), CREATED)
    sizes = ((14_000, 14_000), (65_535, 65_535), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1))
    for width, height in sizes:
        _kind(
            f"PNG: {width:,} x {height:,}",
            lambda rng, size=(width, height): _raw_png(_header(*size), bytes(9_999)),
            TOO_LARGE,
            DAMAGED,
        )
    _kind("PNG: no width", lambda rng: _raw_png(_header(0, 9), bytes(99)), DAMAGED)
    _kind("PNG: more pixels than it says", lambda rng: _raw_png(_header(9, 9), bytes(50_000_000)), CREATED, DAMAGED)
    _kind("PNG: fewer pixels than it says", lambda rng: _raw_png(_header(900, 900), bytes(900)), DAMAGED)
    _kind(
        "PNG: depth and colour at random",
        lambda rng: _raw_png(_header(9, 9, *rng.integers(0, 17, 2).tolist()), bytes(9_999)),
        CREATED, DAMAGED,
    )  # fmt: skip
    _kind("PNG: palette of nothing", lambda rng: _raw_png(_header(9, 9, 8, 3), bytes(90)), CREATED, DAMAGED)
    for kind in (b"IHDR", b"IDAT"):
        _kind(f"PNG: wrong checksum of {kind.decode()}", lambda rng, kind=kind: _wrong_checksum(rng, kind), DAMAGED)
    _kind("PNG: wrong checksum of a text", lambda rng: _wrong_checksum(rng, b"tEXt"), CREATED)
    _kind("PNG: chunks in any order", _reordered, CREATED, DAMAGED)
    _kind("PNG: without IHDR", lambda rng: _from_chunks(*_chunks(_png(rng))[1:]), DAMAGED)
    _kind(
        "PNG: without IDAT",
        lambda rng: _from_chunks(*(chunk for chunk in _chunks(_png(rng)) if chunk[4:8] != b"IDAT")),
        DAMAGED,
    )
    _kind("PNG: without IEND", lambda rng: _from_chunks(*_chunks(_png(rng))[:-1]), CREATED, DAMAGED)
    _kind("PNG: texts that unfold", lambda rng: _with_chunk(_png(rng), *_text_bomb(rng)), CREATED)
    _kind(
        "PNG: profile that unfolds",
        lambda rng: _with_chunk(_png(rng), _chunk(b"iCCP", b"x\0\0" + _zeros(90_000_000))),
        CREATED,
    )
    exif_text = b"Raw profile type exif\0\0"
    _kind(
        "PNG: EXIF text that unfolds",
        lambda rng: _with_chunk(_png(rng), _chunk(b"zTXt", exif_text + _zeros(90_000_000))),
        CREATED, DAMAGED,
    )  # fmt: skip
    _kind("PNG: 80,000 chunks", lambda rng: _with_chunk(_png(rng), _chunk(b"zzZz", b"") * 80_000), CREATED)
    _kind("PNG: a transparent colour", lambda rng: _with_chunk(_png(rng, "L"), _chunk(b"tRNS", rng.bytes(2))), CREATED)
    _kind(
        "PNG: transparency cut",
        lambda rng: _with_chunk(_png(rng, "RGB"), _chunk(b"tRNS", rng.bytes(3))),
        CREATED,
        DAMAGED,
    )


def _register_others() -> None:
    for kind in ("GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM", "TGA", "PCX", "ICNS", "JPEG2000", "AVIF"):
        _kind(f"other: {kind}", lambda rng, kind=kind: _encoded(_plate(rng, "RGB"), kind), OTHER_KIND)
    texts = {
        "SVG": SVG,
        "PDF": PDF,
        "HTML": SCRIPT,
        "ELF": ELF,
        "EXE": b"MZ" + bytes(400),
        "text": b"a radiograph " * 9,
    }
    for name, data in texts.items():
        _kind(f"other: {name}", lambda rng, data=data: data, OTHER_KIND)
    _kind("other: DICOM", lambda rng: bytes(128) + b"DICM" + _jpeg(rng), OTHER_KIND, DAMAGED)
    _kind("other: ZIP", _archive, OTHER_KIND)
    _kind("other: noise", lambda rng: rng.bytes(int(rng.integers(2, 5_000))), OTHER_KIND, DAMAGED)
    _kind("other: nothing", lambda rng: b"", DAMAGED)
    _kind("other: one byte", lambda rng: rng.bytes(1), OTHER_KIND, DAMAGED)
    _kind("other: halves of two", _splice, CREATED, TOO_LARGE, OTHER_KIND, DAMAGED)


_register()
