"""Kinds of files by their bytes: what is not read is told by its own name, and never as damage."""

import io

import numpy as np
import pytest
from PIL import Image

from fracture_det.structures.image_kinds import DICOM, recognise
from fracture_det.structures.radiograph import UnreadableImage, UnsupportedImage, read_radiograph


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(2_400, dtype=np.uint16).reshape(40, 60).astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_frame(marker, precision=8):
    """Return a JPEG whose start of frame says another process or precision."""
    data = bytearray(encoded("JPEG"))
    place = data.find(b"\xff\xc0")
    data[place + 1], data[place + 4] = marker, precision
    return bytes(data)


NOT_READ = [
    (with_frame(0xC0, 12), "a 12-bit JPEG"),
    (with_frame(0xC1, 12), "a 12-bit JPEG"),
    (with_frame(0xC2, 12), "a 12-bit JPEG"),
    (with_frame(0xC3), "a lossless JPEG"),
    (with_frame(0xC3, 16), "a lossless JPEG"),
    (with_frame(0xC5), "a hierarchical JPEG"),
    (with_frame(0xC9), "an arithmetic-coded JPEG"),
    (with_frame(0xF7), "a JPEG-LS image"),
    (encoded("JPEG2000"), "a JPEG 2000 image"),
    (encoded("JPEG2000", no_jp2=True), "a JPEG 2000 image"),
    (encoded("GIF"), "a GIF image"),
    (encoded("PPM"), "a PNM image"),
    (encoded("PDF"), "a PDF file"),
    (encoded("AVIF"), "an AVIF image"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "a HEIC image"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(200), "a HEIC image"),
    (b"\xff\x0a" + bytes(range(1, 99)), "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "a JPEG XL image"),
    (bytes(128) + b"DICM\2\0\2\0UI\x14\x001.2.840.10008.1.3.10\0" + bytes(300), "a DICOM directory"),
    (b"PK\3\4" + bytes(300), "a ZIP archive"),
    (b"\n<!DOCTYPE html><p>Please log in", "an XML, SVG or HTML text"),
]


@pytest.mark.parametrize(("data", "name"), NOT_READ)
@pytest.mark.parametrize("formats", [("JPEG", "PNG"), ("JPEG", "PNG", "BMP", "TIFF", "WEBP")])
def test_what_is_not_read_is_named(data, name, formats):
    with pytest.raises(UnsupportedImage, match=f"upload: {name}, which is not read; convert it") as raised:
        read_radiograph(data, formats=formats)
    assert raised.value.reason.startswith(name)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_what_is_read_elsewhere_is_named_too(kind):
    assert recognise(encoded(kind)).format_name == kind
    with pytest.raises(UnsupportedImage, match=rf"a {kind} image, which is not read".replace("WEBP", "WebP")):
        read_radiograph(encoded(kind), formats=("JPEG", "PNG"))


@pytest.mark.parametrize(
    "data",
    [
        bytes(128) + b"DICM" + bytes(300),
        b"II*\0" + bytes(124) + b"DICM" + bytes(300),  # a TIFF as well
        b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(300),
        b"\x08\0\0\0\4\0\0\0\x92\1\0\0" + bytes(300),
    ],
)
def test_dicom(data):
    assert recognise(data) == DICOM
    with pytest.raises(UnsupportedImage, match="a DICOM file, which is not read"):
        read_radiograph(data, formats=("JPEG", "PNG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_what_is_read_is_read_by_its_bytes(kind, tmp_path):
    (tmp_path / "x.dcm").write_bytes(encoded(kind))
    assert read_radiograph(tmp_path / "x.dcm").size == (40, 60)


def test_a_long_preview_does_not_hide_the_frame():
    data = with_frame(0xC3)
    preview = b"\xff\xe5\xff\xf0" + bytes(0xFFEE)
    assert recognise(data[:2] + preview * 3 + data[2:]).name == "a lossless JPEG"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "the file is empty"), (bytes(5_000), "the file holds nothing but zeros"), (b"\xff\xd8\xff\xe0", "")],
)
def test_damage_is_not_another_kind(data, reason):
    with pytest.raises(UnreadableImage, match=f"upload: {reason}") as raised:
        read_radiograph(data)
    assert not isinstance(raised.value, UnsupportedImage)


def test_bytes_of_no_known_kind():
    with pytest.raises(UnsupportedImage, match=r"^upload: not a JPEG or PNG image$"):
        read_radiograph(b"notes of the ward", formats=("JPEG", "PNG"))
