"""One annotation file as it was written, before any check."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


class AnnotationError(ValueError):
    """An annotation that cannot be used, with the file, the field and the value that is wrong.

    kind: the kind of problem, as in problems.csv.
    """

    def __init__(self, file: str, field: str, value: object, *, kind: str = "unreadable_annotation") -> None:
        super().__init__(f"{file}: {field}: {value}")
        self.file, self.field, self.value, self.kind = file, field, value, kind

    def __reduce__(self) -> tuple[Callable[..., AnnotationError], tuple[str, str, object, str]]:
        return _annotation_error, (self.file, self.field, self.value, self.kind)


def _annotation_error(file: str, field: str, value: object, kind: str) -> AnnotationError:
    return AnnotationError(file, field, value, kind=kind)


@dataclass(frozen=True)
class RawBox:
    """One marked box: class name, x0 y0 x1 y1 as written, and LabelImg's flag `difficult`."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False

    def __post_init__(self) -> None:
        if len(self.box) != 4:
            raise ValueError(f"RawBox.box: expected 4 coordinates, got {len(self.box)}")

    @property
    def finite(self) -> bool:
        """True when all four coordinates are finite numbers."""
        return all(math.isfinite(value) for value in self.box)


@dataclass(frozen=True)
class RawAnnotation:
    """What one annotation file says about one image.

    file: path of the annotation file, for messages.
    image_name, image_path, folder: what the file says about its image (LabelImg's fields), or None.
    size: (height, width) in pixels that the file states; None where it states none.
    boxes: as written; pixels, or fractions of the image's width and height when `relative`.
    """

    file: str
    boxes: tuple[RawBox, ...] = ()
    image_name: str | None = None
    image_path: str | None = None
    folder: str | None = None
    size: tuple[int, int] | None = None
    relative: bool = False
