"""Decodes one compressed DICOM frame in a process of its own, which `dicom_frames` starts; no part of a package.

The decoders are C++ and Rust, and a file may be made to break them: whatever becomes of this process, the one that
started it only sees that no pixels came. It may take neither more memory nor more time than the header of the picture
explains, opens no file for writing, and ends with its frame, so that no patient's picture waits for the next.

    python -I dicom_decoder.py '{"path": [...], "codec": "jpeg", "rows": 4, ...}' < frame > samples

Samples come out little endian, pixel by pixel. Exit code 3: the decoder refused; 4: it is not installed.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
from typing import Any

REFUSED, MISSING = 3, 4


def main() -> int:
    """Decode standard input."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    sys.path[:] = request["path"]
    decode, module = {"jpeg": (_by_gdcm, "gdcm"), "jpeg2000": (_by_openjpeg, "openjpeg"), "rle": (_by_rle, "rle")}[
        request["codec"]
    ]
    try:
        importlib.import_module(module)  # before its memory is limited
    except ImportError:
        return MISSING
    limits = ((resource.RLIMIT_AS, request["bytes"]), (resource.RLIMIT_CPU, request["seconds"]))
    for kind, limit in (*limits, (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (limit, limit))
    samples_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no sample
    frame = sys.stdin.buffer.read()
    try:
        samples = decode(frame, request)
    except BaseException as error:  # a panic of Rust is no Exception
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return REFUSED
    samples_out.write(samples)
    samples_out.close()
    return 0


def _by_gdcm(frame: bytes, request: dict[str, Any]) -> bytes:
    """JPEG, JPEG lossless and JPEG-LS."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(request["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request["syntax"])))
    bits = request["precision"]
    image.SetPixelFormat(gdcm.PixelFormat(request["samples"], request["container"], bits, bits - 1, 0))
    samples = image.GetBuffer()
    if samples is None:
        raise ValueError("the frame is broken")
    return bytes(samples.encode("utf-8", "surrogateescape"))


def _by_openjpeg(frame: bytes, request: dict[str, Any]) -> bytes:
    """JPEG 2000, also high-throughput."""
    import openjpeg

    shape = _shape(request)
    stored: dict[str, Any] = {"bits_stored": request["precision"], "pixel_representation": 0}
    return bytes(
        openjpeg.decode_pixel_data(frame, photometric_interpretation=request["photometric"], **shape, **stored)
    )


def _by_rle(frame: bytes, request: dict[str, Any]) -> bytes:
    """Byte planes of PackBits (PS3.5, annex G); several samples come plane by plane."""
    import rle

    return bytes(rle.decode_pixel_data(frame, byteorder="<", **_shape(request)))


def _shape(request: dict[str, Any]) -> dict[str, Any]:
    """Return what pylibjpeg's plugins want to know, by their names for it."""
    return {
        "version": 2,
        "rows": request["rows"],
        "columns": request["columns"],
        "samples_per_pixel": request["samples"],
        "bits_allocated": request["container"],
    }


if __name__ == "__main__":
    sys.exit(main())
