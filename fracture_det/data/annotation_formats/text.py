"""What every reader tolerates in the writing of a file: its encoding, its numbers, its ids; each with a note.

A note is (kind, detail), as in RawAnnotation.notes. What has two possible meanings is refused instead.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from fracture_det.data.annotations import AnnotationError

Note = tuple[str, str]
Notes = tuple[Note, ...]

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_XML_DECLARATION = re.compile(r"^\s*<\?xml\b[^>]*encoding=[\"'](utf|ucs|iso-10646)[^>]*\?>", re.IGNORECASE)
_SHOWN_LETTERS = 60


class Missing:
    """The value of a key that is not there, which is another thing than null; false, as null is."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "nothing"


MISSING = Missing()


def expected(what: str, value: object) -> str:
    """Return "missing" where there is no value, else what was expected, and what there is, such as null."""
    return "missing" if value is MISSING else f"expected {what}, got {show(value)}"


def decode_text(data: bytes) -> tuple[str, Notes]:
    """Return the text of a file in UTF-8, or in UTF-16 or UTF-32, without its byte order mark.

    Raises ValueError, in words, for bytes that are none of these.
    """
    marked = marked_encoding(data)
    if marked is not None:
        detail = f"the file begins with a byte order mark ({marked.upper()})"
        return _decode(data, marked).removeprefix("\ufeff"), (("byte_order_mark", detail),)
    # Without a mark: the first letter is ASCII (a number, a bracket), one of whose two bytes is zero.
    for zero, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(data) >= 2 and len(data) % 2 == 0 and data[zero] == 0 != data[1 - zero]:
            return _decode(data, encoding), (("encoding", f"read as {encoding.upper()}"),)
    return _decode(data, "utf-8"), ()


def marked_encoding(data: bytes) -> str | None:
    """Return the encoding that the byte order mark at the start of a file names, or None without one."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        bad = data[error.start : error.start + 1].hex()
        raise ValueError(f"not {encoding.upper()} (byte 0x{bad} at {error.start:,}); save it as UTF-8") from None


def read_json(file: str, data: bytes) -> tuple[Any, Notes]:
    """Return what a JSON file holds; NaN and Infinity, which Python and JavaScript tools write, become floats.

    Raises AnnotationError for what is not JSON, and for an object that has one key twice: which value holds is not
    known.
    """
    try:
        text, notes = decode_text(data)
        return json.loads(text, object_pairs_hook=_unique_keys), notes
    except RecursionError:
        raise AnnotationError(file, "json", "nested too deeply") from None
    except ValueError as error:  # JSONDecodeError is one
        raise AnnotationError(file, "json", str(error)) from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return content


def read_xml(file: str, data: bytes) -> tuple[Element, Notes]:
    """Return the root of an XML file, without its namespaces.

    Raises AnnotationError for XML that is broken, and for entities and document types, which no annotation tool writes.
    """
    notes: Notes = ()
    try:
        try:
            root = ElementTree.fromstring(data, forbid_dtd=True)
        except (ParseError, ValueError, LookupError):
            # The declaration may name another encoding of Unicode than that of the bytes.
            text, notes = decode_text(data)
            if not _XML_DECLARATION.match(text):
                raise
            root = ElementTree.fromstring(_XML_DECLARATION.sub("", text, count=1).lstrip(), forbid_dtd=True)
            notes = (*notes, ("encoding", "the file is not in the encoding that its first line names"))
    except DefusedXmlException as error:
        raise AnnotationError(file, "entity", type(error).__name__, kind="entity_attack") from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise AnnotationError(file, "xml", str(error)) from error
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root, notes


def parse_number(value: object) -> tuple[float, Notes]:
    """Return a number that a file holds as a number, or as text with a decimal point or a decimal comma.

    NaN and infinities are returned as such. Raises ValueError, in words, for anything else, and for a comma that may
    separate thousands.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected("a number", value))
    try:
        if not isinstance(value, str):
            return float(value), ()
        text = value.strip()
        if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text) and not re.match(r"[+-]?0,", text):
            raise ValueError(f"expected a number, got {show(value)}: a decimal comma, or thousands?")
        if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text):
            return float(text.replace(",", ".")), (("decimal_comma", f"{show(value)} read with a decimal point"),)
        if "_" in text:  # float() would ignore it
            raise ValueError(f"expected a number, got {show(value)}")
        return float(text), ()
    except OverflowError:
        raise ValueError(f"expected a number, got one of more than 300 digits: {show(value)}") from None
    except ValueError as error:
        raise (
            error if str(error).startswith("expected") else ValueError(f"expected a number, got {show(value)}")
        ) from None


def parse_whole_number(value: object) -> tuple[int, Notes]:
    """Return a whole number, such as a size in pixels or a class id; 12.0 and "12" are 12, the text with a note.

    Raises ValueError, in words, for anything else: fractions, NaN, infinity.
    """
    number, notes = parse_number(value)
    if not math.isfinite(number) or number != math.floor(number) or abs(number) >= 2**53:
        raise ValueError(f"expected a whole number, got {show(value)}")
    if isinstance(value, str) and not re.fullmatch(r"[+-]?\d+", value.strip()):
        notes = (*notes, ("whole_number", f"{show(value)} read as {int(number)}"))
    return int(number), notes


def parse_id(value: object) -> tuple[int | str, Notes]:
    """Return an id as number where it is one, else as text: "0", 0 and 0.0 are one id; "00" and "a" stay text.

    Raises ValueError, in words, for MISSING, null, an empty text, and what is neither number nor text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        raise ValueError(expected("a number or a text", value))
    if isinstance(value, float):
        if not (math.isfinite(value) and value == math.floor(value)):
            raise ValueError(f"expected a whole number or a text, got {show(value)}")
        return int(value), ()
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value.strip()):
        return int(value), (("id_as_text", f"the id {show(value)} is text; read as the number {int(value)}"),)
    return value, ()


def one_note_per_kind(notes: Iterable[Note]) -> Notes:
    """Return the first note of each kind, with the number of further ones."""
    of_kind: dict[str, list[str]] = {}
    for kind, detail in notes:
        of_kind.setdefault(kind, []).append(detail)
    return tuple(
        (kind, details[0] + (f"; and {len(details) - 1} more" if len(details) > 1 else ""))
        for kind, details in of_kind.items()
    )


def show(value: object) -> str:
    """Return a value of a file as an error message shows it: short, on one line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more than 4,300 digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."
