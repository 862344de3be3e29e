"""What the tags of a TIFF say of its pictures, and one picture of it in the form that the decoder reads."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from fracture_det.structures.image_errors import DamagedImage, UnreadableImage, UnsupportedImage

# Tag numbers of TIFF 6.0.
NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339
NEEDED = (
    *(NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP),
    *(
        STRIP_BYTES,
        PLANAR,
        TILE_WIDTH,
        TILE_HEIGHT,
        TILE_OFFSETS,
        TILE_BYTES,
        SAMPLE_FORMAT,
        ORIENTATION,
        EXTRA_SAMPLES,
    ),
)
WHITE_IS_ZERO, BLACK_IS_ZERO, UNCOMPRESSED = 0, 1, 1
RGB, YCBCR, CONTIGUOUS, OPACITY, UPRIGHT = 2, 6, 1, 2, 1  # of PHOTOMETRIC, PLANAR, EXTRA_SAMPLES and ORIENTATION
DEFLATE = (8, 32946)  # of COMPRESSION
REDUCED, MASK = 1, 4  # bits of NewSubfileType: a smaller copy of another page, a mask of one
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
MAX_PAGES, MAX_TAGS, MAX_VALUES = 1_000, 4_096, 1_000_000
# Number of a type of whole numbers -> its code in `struct`.
TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
PHOTOMETRICS = ("white is zero", "black is zero", "RGB", "palette", "mask", "CMYK", "YCbCr", "photometric 7", "CIELAB")


@dataclass(frozen=True)
class TiffPage:
    """One picture of a TIFF.

    place: where its directory begins, in bytes. end: where the place of the next directory stands.
    tags: number -> values, of those in NEEDED.
    places: number -> where the first value stands and its code in `struct`. order: "<" or ">".
    """

    place: int
    end: int
    tags: dict[int, tuple[int, ...]]
    places: dict[int, tuple[int, str]]
    order: str

    def value(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def depth(self) -> int:
        """Bits per sample."""
        return self.value(BITS, 1)

    @property
    def sample_format(self) -> int:
        """UNSIGNED, SIGNED or FLOAT."""
        stated = self.value(SAMPLE_FORMAT, UNSIGNED)
        return UNSIGNED if stated == UNDEFINED else stated

    @property
    def white_is_zero(self) -> bool:
        """Whether low grey values are bright."""
        return self.value(PHOTOMETRIC, BLACK_IS_ZERO) == WHITE_IS_ZERO

    def describe(self) -> str:
        """Return what a reader must know to convert the file."""
        photometric = self.value(PHOTOMETRIC, -1)
        meaning = PHOTOMETRICS[photometric] if 0 <= photometric < len(PHOTOMETRICS) else f"photometric {photometric}"
        numbers = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "floating-point"}.get(self.sample_format, "complex")
        return (
            f"a TIFF of {self.value(SAMPLES, 1)} x {self.depth} bits ({numbers}; {meaning}; "
            f"compression {self.value(COMPRESSION, 1)})"
        )


@dataclass(frozen=True)
class SinglePage:
    """A TIFF of one page, stored upright, in which low grey values are dark; `page` says what it said before."""

    data: bytes
    page: TiffPage


def single_page(data: bytes) -> SinglePage:
    """Return the one radiograph of a TIFF; smaller copies and masks of it are left out.

    Raises UnsupportedImage where there are several pages, so that none is passed over, or where the file does not say
    whether 0 is black or white, and DamagedImage.
    """
    reader = _Reader(data)
    pages = reader.pages()
    whole = [page for page in pages if not page.value(NEW_SUBFILE_TYPE, 0) & (REDUCED | MASK)]
    if len(whole) != 1:
        found = f"{len(whole)} pages" if whole else "reduced copies and masks only"
        raise UnsupportedImage(f"a TIFF of {found}, of which one is read; save each page as a file of its own")
    (page,) = whole
    if PHOTOMETRIC not in page.tags:
        raise UnsupportedImage("a TIFF that does not say whether 0 is black or white (no PhotometricInterpretation)")
    _check_parts(page, data)
    changed = bytearray(data)
    offset, first = ("Q", 8) if reader.big else ("I", 4)
    struct.pack_into(f"{reader.order}{offset}", changed, first, page.place)
    struct.pack_into(f"{reader.order}{offset}", changed, page.end, 0)
    # Pillow inverts some depths and byte orders, refuses others and forgets the rest, and turns some pages itself.
    for tag, neutral in ((PHOTOMETRIC, BLACK_IS_ZERO), (ORIENTATION, UPRIGHT)):
        if tag == ORIENTATION or page.value(tag, neutral) == WHITE_IS_ZERO:
            place, code = page.places.get(tag, (None, ""))
            if place is not None:
                struct.pack_into(f"{reader.order}{code}", changed, place, neutral)
    return SinglePage(bytes(changed), page)


def _check_parts(page: TiffPage, data: bytes) -> None:
    """Raise DamagedImage where a strip or tile of the picture is missing, lies outside the file or is too short."""
    height, width = page.value(HEIGHT, 0), page.value(WIDTH, 0)
    tiled = TILE_OFFSETS in page.tags
    offsets = page.tags.get(TILE_OFFSETS if tiled else STRIP_OFFSETS, ())
    sizes = page.tags.get(TILE_BYTES if tiled else STRIP_BYTES, ())
    if tiled:
        rows, columns = page.value(TILE_HEIGHT, 0), page.value(TILE_WIDTH, 0)
    else:
        rows, columns = min(page.value(ROWS_PER_STRIP, height), height), width
    if not (rows and columns and height and width):
        raise DamagedImage("its tags give no size of its picture or of its strips")
    samples, planes = page.value(SAMPLES, 1), 1
    if page.value(PLANAR, CONTIGUOUS) != CONTIGUOUS:
        samples, planes = 1, samples
    down = -(-height // rows)
    expected = down * -(-width // columns) * planes
    if len(offsets) < expected or (sizes and len(sizes) < expected):
        raise DamagedImage(f"truncated: {len(offsets)} of {expected} strips or tiles of its picture are there")
    for index, (offset, size) in enumerate(zip(offsets[:expected], sizes, strict=False)):
        if size == 0 or offset + size > len(data):
            raise DamagedImage(f"truncated: strip or tile {index + 1} of {expected} is not whole")
        is_last = not tiled and index % down == down - 1
        part_rows = height - (down - 1) * rows if is_last else rows
        needed = part_rows * ((columns * samples * page.depth + 7) // 8)
        if page.value(PHOTOMETRIC, RGB) != YCBCR and _coded_bytes(page, data[offset : offset + size], needed) < needed:
            raise DamagedImage(f"truncated: strip or tile {index + 1} of {expected} has too few bytes")


def _coded_bytes(page: TiffPage, part: bytes, needed: int) -> int:
    """Return how many bytes of samples a strip or tile holds; libtiff itself notices what LZW or PackBits lack."""
    compression = page.value(COMPRESSION, UNCOMPRESSED)
    if compression == UNCOMPRESSED:
        return len(part)
    if compression not in DEFLATE:
        return needed
    unpacker = zlib.decompressobj()
    try:
        unfolded = len(unpacker.decompress(part, needed + 1))
    except zlib.error as error:
        raise DamagedImage(f"its compressed pixels are broken ({error})") from error
    if unfolded == needed and not unpacker.eof:
        unpacker.decompress(unpacker.unconsumed_tail, 1)  # its checksum
        return needed if unpacker.eof else 0
    return unfolded


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data.startswith(b"II") else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")

    def pages(self) -> list[TiffPage]:
        pages: list[TiffPage] = []
        place = self._number("Q", 8) if self.big else self._number("I", 4)
        while place:
            if len(pages) == MAX_PAGES or any(page.place == place for page in pages):
                raise UnreadableImage(f"more than {MAX_PAGES:,} pages, or pages in a circle")
            pages.append(self._page(place))
            place = self._number("Q" if self.big else "I", pages[-1].end)
        return pages

    def _page(self, place: int) -> TiffPage:
        count, first, size = (
            (self._number("Q", place), place + 8, 20) if self.big else (self._number("H", place), place + 2, 12)
        )
        if count > MAX_TAGS:
            raise UnreadableImage(f"more than {MAX_TAGS:,} tags in a page")
        tags: dict[int, tuple[int, ...]] = {}
        places: dict[int, tuple[int, str]] = {}
        for entry in range(first, first + count * size, size):
            tag, kind = self._number("H", entry), self._number("H", entry + 2)
            number = self._number("Q" if self.big else "I", entry + 4)
            code = TYPES.get(kind)
            if tag not in NEEDED or code is None or tag in tags or not 0 < number <= MAX_VALUES:
                continue
            inside, width = entry + size - (8 if self.big else 4), struct.calcsize(code)
            fits = number * width <= (8 if self.big else 4)
            values = inside if fits else self._number("Q" if self.big else "I", inside)
            if values + number * width > len(self.data):
                raise DamagedImage(f"the file ends before the values of its tag {tag}")
            tags[tag] = struct.unpack_from(f"{self.order}{number}{code}", self.data, values)
            places[tag] = (values, code)
        return TiffPage(place, first + count * size, tags, places, self.order)

    def _number(self, code: str, place: int) -> int:
        if place + struct.calcsize(code) > len(self.data):
            raise DamagedImage("the file ends before the directory of its page")
        return int(struct.unpack_from(f"{self.order}{code}", self.data, place)[0])
