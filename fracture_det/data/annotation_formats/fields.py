"""The fields of one image's annotation: read with tolerance, which is noted, or refused with the field's name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.shapes import Point
from fracture_det.data.annotation_formats.text import (
    MISSING,
    Note,
    Notes,
    expected,
    one_note_per_kind,
    parse_number,
    parse_whole_number,
    show,
)
from fracture_det.data.annotations import AnnotationError


class FieldReader:
    """Reads the fields of one image's annotation in `file`, and collects what was read with tolerance."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._notes: list[Note] = []

    @property
    def notes(self) -> Notes:
        """One note per kind."""
        return one_note_per_kind(self._notes)

    def note(self, kind: str, detail: str) -> None:
        """Add a note."""
        self._notes.append((kind, detail))

    def note_shape(self, kind: str, place: str) -> None:
        """Note that a box was made from a shape of another kind."""
        self.note("box_from_polygon" if kind == "polygon" else "box_from_shape", f"{place}: the box around the {kind}")

    def fail(self, field: str, value: object, *, kind: str = "unreadable_annotation") -> AnnotationError:
        """Return the error that says what is wrong with a field of this file."""
        return AnnotationError(self.file, field, value, kind=kind)

    def number(self, value: object, field: str) -> float:
        """Return a number, which may not be finite."""
        try:
            number, notes = parse_number(value)
        except ValueError as error:
            raise self.fail(field, error) from None
        self._notes.extend(notes)
        return number

    def degrees(self, value: object, field: str) -> float:
        """Return a finite angle; 0 for none."""
        number = self.number(value or 0, field)
        if not math.isfinite(number):
            raise self.fail(field, f"expected degrees, got {show(value)}")
        return number

    def numbers(self, item: Mapping[str, Any], keys: Iterable[str], field: str) -> list[float]:
        """Return the numbers of several keys of an object."""
        return [self.number(item.get(key, MISSING), f"{field}: {key}") for key in keys]

    def points(self, xs: Iterable[object], ys: Iterable[object], field: str) -> list[Point]:
        """Return points of equally many x and y."""
        x = [self.number(value, field) for value in xs]
        y = [self.number(value, field) for value in ys]
        if len(x) != len(y) or not x:
            raise self.fail(field, f"{len(x)} x for {len(y)} y")
        return list(zip(x, y, strict=True))

    def pairs(self, value: object, field: str) -> list[Point]:
        """Return points written as a list of [x, y]."""
        pairs = self.list(value, field)
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.fail(field, f"expected [x, y], got {show(pair)}")
        return self.points([pair[0] for pair in pairs], [pair[1] for pair in pairs], field)

    def size(self, height: object, width: object) -> tuple[int, int] | None:
        """Return (height, width), or None where neither is stated."""
        if height in (None, MISSING) and width in (None, MISSING):
            return None
        sizes = []
        for field, value in (("height", height), ("width", width)):
            try:
                size, notes = parse_whole_number(value)
            except ValueError as error:
                raise self.fail(field, error) from None
            self._notes.extend(notes)
            sizes.append(size)
        return sizes[0], sizes[1]

    def name(self, value: object, field: str) -> str:
        """Return the name of a class; a number is its text."""
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise self.fail(field, "missing" if value == "" else expected("a name", value))
        return str(value).strip()

    def list(self, value: object, field: str) -> list[Any]:
        """Return a list."""
        if not isinstance(value, list):
            raise self.fail(field, expected("a list", value))
        return value

    def object(self, value: object, field: str) -> dict[str, Any]:
        """Return a JSON object."""
        if not isinstance(value, dict):
            raise self.fail(field, expected("an object", value))
        return value


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file. Raises AnnotationError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AnnotationError(str(path), "file", error.strerror or error) from error
