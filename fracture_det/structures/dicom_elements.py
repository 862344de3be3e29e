"""Where the elements of a DICOM file lie, found without a parser: few enough, whole, and nested no deeper than sane."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from fracture_det.structures.image_errors import DamagedImage, ImageTooLarge, UnsupportedImage

PREAMBLE_BYTES, PREFIX = 128, b"DICM"
# PS3.6, annex A.
IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
STANDARD_SYNTAXES = "1.2.840.10008.1.2."  # of the standard and not of a vendor: all in explicit little endian
# A radiograph has a few hundred elements, and its sequences three or four levels.
MAX_ELEMENTS, MAX_DEPTH, MAX_META_ELEMENTS = 20_000, 16, 64
UNDEFINED = 0xFFFFFFFF
# PS3.5, 7.1.2: the representations whose length takes four bytes, after two that are reserved.
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
REPRESENTATION = re.compile(rb"[A-Z]{2}")
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
PIXEL_DATA, FLOAT_PIXELS = (0x7FE0, 0x0010), ((0x7FE0, 0x0008), (0x7FE0, 0x0009))
TRANSFER_SYNTAX = (0x0002, 0x0010)

Tag = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Where things lie in a DICOM file.

    syntax: UID of the transfer syntax. data: the data set, without meta information, inflated where it was deflated.
    header_end: where Pixel Data begins in `data`, or its end without any. pixel_vr: OB or OW, or an empty text in
    implicit VR. native: (begin, end) of uncompressed pixels. fragments: (begin, end) of each fragment of encapsulated
    pixels, after the offset table.
    """

    syntax: str
    data: bytes
    header_end: int
    pixel_vr: str = ""
    native: tuple[int, int] | None = None
    fragments: tuple[tuple[int, int], ...] = ()

    @property
    def implicit(self) -> bool:
        """Whether elements do not say their value representation."""
        return self.syntax == IMPLICIT_LITTLE

    @property
    def little(self) -> bool:
        """Whether numbers begin with their lowest byte."""
        return self.syntax != EXPLICIT_BIG

    @property
    def has_pixels(self) -> bool:
        """Whether there is a picture at all."""
        return self.native is not None or bool(self.fragments)


def is_dicom(data: bytes) -> bool:
    """Say whether the bytes begin with the preamble of DICOM part 10."""
    return data.startswith(PREFIX, PREAMBLE_BYTES)


def find_elements(data: bytes, max_inflated: int) -> Layout:
    """Return where the header and the pixels of a DICOM file lie.

    A file without preamble is read too: with meta information as it says, without as explicit or implicit little
    endian, whichever its first element shows. max_inflated: bytes of a deflated data set that are unfolded at most.

    Raises DamagedImage, naming the element, where the file ends within one or contradicts itself; UnsupportedImage for
    the transfer syntax of a vendor, and ImageTooLarge where too much is deflated.
    """
    place = PREAMBLE_BYTES + len(PREFIX) if is_dicom(data) else 0
    place, syntax = _read_meta(data, place)
    if not syntax:
        syntax = EXPLICIT_LITTLE if REPRESENTATION.match(data, place + 4) else IMPLICIT_LITTLE
    elif syntax != IMPLICIT_LITTLE and not syntax.startswith(STANDARD_SYNTAXES):
        raise UnsupportedImage(f"a DICOM file of the transfer syntax {syntax}, which is not of the standard")
    data_set = _inflate(data[place:], max_inflated) if syntax == DEFLATED else data[place:]
    return _Walker(data_set, syntax).layout()


def _read_meta(data: bytes, place: int) -> tuple[int, str]:
    """Return where the meta information (group 0002) ends, and the transfer syntax that it states or an empty text."""
    walker, syntax = _Walker(data, EXPLICIT_LITTLE), ""
    for _ in range(MAX_META_ELEMENTS):
        if data[place : place + 2] != b"\2\0":
            return place, syntax
        tag, _, place, length = walker.header(place)
        if length == UNDEFINED:
            raise DamagedImage(f"its element {named(tag)} has no length")
        if tag == TRANSFER_SYNTAX:
            syntax = data[place : place + min(length, 64)].decode("ascii", "replace").rstrip("\0 ")
            syntax = re.sub(r"[^0-9.]", "?", syntax)  # what is shown of a file is no text of it
        place = walker.skip(tag, place, length)
    raise DamagedImage(f"more than {MAX_META_ELEMENTS} elements of meta information")


def _inflate(packed: bytes, limit: int) -> bytes:
    """Return a deflated data set (PS3.5, A.5), of at most `limit` bytes."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = unpacker.decompress(packed, limit + 1)
    except zlib.error as error:
        raise DamagedImage(f"its deflated data set is broken ({error})") from error
    if len(data) > limit:
        raise ImageTooLarge(f"its data set unfolds to more than {limit:,} bytes")
    if not unpacker.eof:
        raise DamagedImage("truncated: its deflated data set is not whole")
    return data


def named(tag: Tag) -> str:
    """Return a tag as the standard writes it, "(0028,0010)"."""
    return f"({tag[0]:04X},{tag[1]:04X})"


class _Walker:
    """Steps over the elements of one data set and counts them."""

    def __init__(self, data: bytes, syntax: str) -> None:
        self.data, self.syntax, self.count = data, syntax, 0
        self.order = ">" if syntax == EXPLICIT_BIG else "<"

    def layout(self) -> Layout:
        """Return the layout, walking up to the pixels."""
        implicit = self.syntax == IMPLICIT_LITTLE
        for begin, tag, vr, place, length in self.elements(0, len(self.data), implicit, 0):
            if tag in FLOAT_PIXELS:
                raise UnsupportedImage("a DICOM file of floating-point pixels, which is not read")
            if tag != PIXEL_DATA:
                continue
            said = vr.decode()
            if length == UNDEFINED:
                fragments = tuple(self.fragments(place))
                if len(fragments) < 2:  # the first is the offset table
                    raise DamagedImage("its encapsulated Pixel Data are empty")
                return Layout(self.syntax, self.data, begin, said, fragments=fragments[1:])
            return Layout(self.syntax, self.data, begin, said, native=(place, place + length))
        return Layout(self.syntax, self.data, len(self.data))

    def elements(
        self, place: int, end: int, implicit: bool, depth: int, *, open_ended: bool = False
    ) -> Iterator[tuple[int, Tag, bytes, int, int]]:
        """Yield (begin, tag, representation, begin of value, length) of the elements from `place` to `end`.

        open_ended: they end with an item delimiter instead, and then `self.place` is behind it. Pixel Data of the
        outermost level are the last that is looked at.
        """
        while place < end:
            begin = place
            tag, vr, place, length = self.header(place, implicit)
            if tag == ITEM_END and open_ended:
                self.place = place
                return
            if tag == (0, 0) and depth == 0 and not self.data[begin:end].strip(b"\0"):
                return  # padding of a block device
            if length != UNDEFINED:
                self.skip(tag, place, length, end)
            yield begin, tag, vr, place, length
            if tag == PIXEL_DATA and depth == 0:
                return
            place = self.behind(tag, vr, place, length, implicit, depth)
        if open_ended:
            raise DamagedImage("truncated: an item of a sequence is not closed")

    def behind(self, tag: Tag, vr: bytes, place: int, length: int, implicit: bool, depth: int) -> int:
        """Return where an element ends, after walking through what is nested in it."""
        if length != UNDEFINED:
            if vr == b"SQ":
                self.items(place, place + length, implicit, depth + 1)
            return place + length
        if tag == PIXEL_DATA:  # of an icon
            list(self.fragments(place))
            return self.place
        if vr not in (b"", b"SQ", b"UN"):
            raise DamagedImage(f"its element {named(tag)} has no length")
        # PS3.5, 6.2.2, note 2: an unknown sequence is in implicit VR.
        return self.items(place, None, implicit or vr == b"UN", depth + 1)

    def items(self, place: int, end: int | None, implicit: bool, depth: int) -> int:
        """Walk through the items of a sequence; return where it ends. end: None where a delimiter says so."""
        if depth > MAX_DEPTH:
            raise DamagedImage(f"its sequences are nested in more than {MAX_DEPTH} levels")
        while end is None or place < end:
            tag, _, place, length = self.header(place, True)
            if tag == SEQUENCE_END and end is None:
                return place
            if tag != ITEM:
                raise DamagedImage(f"its element {named(tag)} stands where an item of a sequence was expected")
            stop = len(self.data) if length == UNDEFINED else self.skip(tag, place, length, end)
            for _ in self.elements(place, stop, implicit, depth, open_ended=length == UNDEFINED):
                pass
            place = self.place if length == UNDEFINED else stop
        return place

    def fragments(self, place: int) -> Iterator[tuple[int, int]]:
        """Yield (begin, end) of the items of encapsulated pixels (PS3.5, A.4); then `self.place` is behind them."""
        while True:
            tag, _, place, length = self.header(place, True)
            if tag == SEQUENCE_END:
                self.place = place
                return
            if tag != ITEM or length == UNDEFINED:
                raise DamagedImage(f"its element {named(tag)} stands where a fragment of Pixel Data was expected")
            yield place, self.skip(tag, place, length)
            place += length

    def header(self, place: int, implicit: bool = False) -> tuple[Tag, bytes, int, int]:
        """Return tag, representation, begin of the value and length of the element at `place`."""
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise DamagedImage(f"more than {MAX_ELEMENTS:,} elements before its pixels")
        try:
            tag = struct.unpack_from(f"{self.order}HH", self.data, place)
            vr = b"" if implicit or tag[0] == 0xFFFE else self.data[place + 4 : place + 6]
            if not vr:
                length = struct.unpack_from(f"{self.order}I", self.data, place + 4)[0]
                return tag, vr, place + 8, length
            if not REPRESENTATION.fullmatch(vr):
                raise DamagedImage(f"its element {named(tag)} is not coded as its transfer syntax says")
            if vr in LONG:
                return tag, vr, place + 12, struct.unpack_from(f"{self.order}I", self.data, place + 8)[0]
            return tag, vr, place + 8, struct.unpack_from(f"{self.order}H", self.data, place + 6)[0]
        except struct.error as error:
            raise DamagedImage("truncated: the file ends within the header of an element") from error

    def skip(self, tag: Tag, place: int, length: int, end: int | None = None) -> int:
        """Return where a value ends. Raises DamagedImage where that is behind the end of the file or its sequence."""
        if place + length > (len(self.data) if end is None else end):
            raise DamagedImage(f"truncated: its element {named(tag)} of {length:,} bytes is not whole")
        return place + length
