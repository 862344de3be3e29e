"""What is known of a received object from its header, which may be anything."""

from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.filereader import _at_pixel_data, _read_file_meta_info, read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ..store.pacs import Received

# What is taken where the configuration says `accept = "radiographs"`.
RADIOGRAPHS = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
)
MAX_UID = 64
MAX_HEADER_BYTES = 64 * 1024 * 1024


class MalformedObject(ValueError):
    """An object cannot be taken; the message says why, without any value of the object."""


def inspect(path: Path) -> tuple[Received, Dataset]:
    """Return what identifies the object in a file of PS3.10, and its header without pixels.

    Raises MalformedObject for what is no DICOM object, or lacks the UIDs that every object has.
    """
    try:
        header = read_header(path)
        study, instance, sop_class = (
            _uid(header, keyword) for keyword in ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID")
        )
    except MalformedObject:
        raise
    except Exception as error:  # pydicom raises nearly everything on what is no DICOM
        raise MalformedObject(f"the dataset cannot be read ({type(error).__name__})") from error
    sha256, size = _dataset_hash(path)
    return Received(study, instance, sop_class, sha256, size), header


def read_header(path: Path) -> Dataset:
    """Return the header of an object in a file of PS3.10, without its pixels.

    A deflated one is unfolded up to MAX_HEADER_BYTES: pydicom unfolds everything, and a megabyte may hold a gigabyte.
    """
    with path.open("rb") as file:
        read_preamble(file, force=True)
        meta = _read_file_meta_info(file)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            unfolded = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(MAX_HEADER_BYTES), MAX_HEADER_BYTES)
            return read_dataset(io.BytesIO(unfolded), False, True, stop_when=_at_pixel_data)
    return dcmread(path, stop_before_pixels=True, defer_size=MAX_HEADER_BYTES)


def text_of(header: Dataset, keyword: str) -> str:
    """Return an attribute as text, empty where it is missing or cannot be read."""
    try:
        value: Any = getattr(header, keyword, None)
    except Exception:  # a broken value is read only now
        return ""
    return "" if value is None else str(value).strip()


def is_image(header: Dataset) -> bool:
    """Return whether an object has a picture: only of those an answer says that they were not analysed."""
    return "Rows" in header and "Columns" in header


def _uid(header: Dataset, keyword: str) -> str:
    value = text_of(header, keyword)
    if not value or len(value) > MAX_UID or not set(value) <= set("0123456789."):
        raise MalformedObject(f"{keyword} is {'missing' if not value else 'not a UID'}")
    return value


def _dataset_hash(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of the dataset behind the file meta information, as it is encoded."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        read_preamble(file, force=True)
        _read_file_meta_info(file)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
