"""What kind of file some bytes are, whatever the name of the file says."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What a data set may contain, by the names that Pillow gives, and DICOM; the web page accepts fewer.
PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
IMAGE_FORMATS = (*PILLOW_FORMATS, "DICOM")
# So many bytes from the beginning are enough for `recognise`, unless a JPEG has a long preview before its frame.
HEAD_BYTES = 65_536
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ImageKind:
    """A kind of file.

    name: with its article, as in "This is a GIF image". format_name: of IMAGE_FORMATS for kinds that may be read, else
    None.
    """

    name: str
    format_name: str | None = None

    @property
    def noun(self) -> str:
        """The name without its article, as in "1 DICOM file"."""
        return self.name.split(" ", 1)[1]


JPEG = ImageKind("a JPEG image", "JPEG")
DICOM = ImageKind("a DICOM file", "DICOM")
# What names the files on a disc; its class stands in the meta information (PS3.3, annex F).
DICOM_DIRECTORY, DIRECTORY_CLASS = ImageKind("a DICOM directory"), b"UI\x14\x001.2.840.10008.1.3.10"
# Start-of-frame markers (ISO/IEC 10918-1, table B.1; F7: ISO/IEC 14495-1) of what is not read. The decoders at hand
# read none of these, or only some of their depths.
JPEG_PROCESSES = {
    0xC3: "a lossless JPEG",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA), "an arithmetic-coded JPEG"),
    0xCB: "a lossless JPEG",
    0xF7: "a JPEG-LS image",
}
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9

# (place, bytes, kind), looked at in this order.
SIGNATURES = (
    (0, PNG_START, ImageKind("a PNG image", "PNG")),
    *((0, start, ImageKind("a TIFF image", "TIFF")) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (8, b"WEBP", ImageKind("a WebP image", "WEBP")),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", ImageKind("a JPEG 2000 image")),
    (0, b"\xff\x4f\xff\x51", ImageKind("a JPEG 2000 image")),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", ImageKind("a JPEG XL image")),
    (0, b"\xff\x0a", ImageKind("a JPEG XL image")),
    (0, b"II\xbc\x01", ImageKind("a JPEG XR image")),
    (0, b"GIF8", ImageKind("a GIF image")),
    (0, b"8BPS", ImageKind("a Photoshop file")),
    (0, b"v/1\x01", ImageKind("an OpenEXR image")),
    (0, b"NRRD0", ImageKind("an NRRD file")),
    (344, b"n+1\0", ImageKind("a NIfTI file")),
    (0, b"PK\x03\x04", ImageKind("a ZIP archive")),
    (0, b"\x1f\x8b", ImageKind("a gzip archive")),
    (0, b"7z\xbc\xaf\x27\x1c", ImageKind("a 7z archive")),
)
# Size of the second header of a BMP: "BM" alone begins many texts.
BMP = ImageKind("a BMP image", "BMP")
BMP_START, BMP_HEADER_SIZES = b"BM", (12, 16, 40, 52, 56, 64, 108, 124)
# Brands of the ISO base media file format (ISO/IEC 14496-12), from the first that fits.
BRANDS = ((b"avi", "an AVIF image"), (b"hei", "a HEIC image"), (b"hev", "a HEIC image"), (b"mif", "a HEIC image"))
# A data set without the preamble of DICOM part 10: group 0002 or 0008, then a value representation or a length.
BARE_DICOM = re.compile(rb"[\x02\x08]\0[\0-\xff]\0(?:[A-Z]{2}|[\0-\xff]\0\0\0)", re.DOTALL)
NETPBM = re.compile(rb"P[1-7]\s")
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|!doctype|html|svg)", re.IGNORECASE)


def recognise(data: bytes) -> ImageKind | None:
    """Return the kind of file that these bytes begin (HEAD_BYTES of them are enough), or None."""
    if data.startswith(b"DICM", 128):  # before it may stand anything, such as the beginning of a TIFF (PS3.10, 7.1)
        return DICOM_DIRECTORY if DIRECTORY_CLASS in data[132:HEAD_BYTES] else DICOM
    if data.startswith(JPEG_START):
        return _jpeg_kind(data)
    for place, signature, kind in SIGNATURES:
        if data.startswith(signature, place) and (kind.format_name != "WEBP" or data.startswith(b"RIFF")):
            return kind
    if data.startswith(BMP_START) and int.from_bytes(data[14:18], "little") in BMP_HEADER_SIZES:
        return BMP
    if data[4:8] == b"ftyp":
        return ImageKind(next((name for brand, name in BRANDS if data.startswith(brand, 8)), "a video"))
    if b"%PDF-" in data[:1024]:
        return ImageKind("a PDF file")
    if BARE_DICOM.match(data):
        return DICOM
    if NETPBM.match(data):
        return ImageKind("a PNM image")
    return ImageKind("an XML, SVG or HTML text") if MARKUP.match(data) else None


def _jpeg_kind(data: bytes) -> ImageKind:
    """Return what the first start-of-frame marker says; a JPEG without one is broken, which is found out later."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker in JPEG_PROCESSES:
            return ImageKind(JPEG_PROCESSES[marker])
        if marker in (BASELINE, EXTENDED, PROGRESSIVE):
            # Precision in bits; 12 is the only other one of these processes.
            return ImageKind("a 12-bit JPEG") if data[place + 4 : place + 5] == b"\x0c" else JPEG
        if marker in (START_OF_SCAN, END_OF_IMAGE):
            break
        if marker in (0x00, 0xFF) or marker in WITHOUT_LENGTH:
            place += 1
        else:
            place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    return JPEG
