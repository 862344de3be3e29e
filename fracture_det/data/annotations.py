"""One annotation as it was written, before any check; what every reader of annotation_formats returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fracture_det.data.records import Problem


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
    """One marked box.

    name: its class. box: x0 y0 x1 y1 as written. difficult: LabelImg's flag.
    crowd: COCO's `iscrowd`, a region to ignore rather than one box.
    rotation: degrees that the file turns the box by, about its centre, and that `box` does not contain (CVAT).
    type: its type of fracture as written in an attribute `type`; empty where it has none.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    rotation: float = 0.0
    type: str = ""

    def __post_init__(self) -> None:
        if len(self.box) != 4:
            raise ValueError(f"RawBox.box: expected 4 coordinates, got {len(self.box)}")

    @property
    def finite(self) -> bool:
        """True when all four coordinates are finite numbers."""
        return all(math.isfinite(value) for value in self.box)


@dataclass(frozen=True)
class RawAnnotation:
    """What one annotation says about one image.

    file: path of the annotation file, and the item in it where it holds many images; for messages.
    image_name, image_path, folder: what it says about its image (LabelImg's fields), or None. An export for many images
    gives as image_path what it calls the image, relative or absolute, with forward slashes.
    other_names: further names under which the image may lie, such as the name that Label Studio stores an upload under.
    size: (height, width) in pixels that the file states; None where it states none.
    boxes: as written; pixels, or fractions of the image's width and height when `relative`.
    notes: (kind, detail) of what was read with tolerance; reported, and the image is kept.
    fault: why it cannot be used, or None. Its image has an annotation, and is excluded: it is not healthy.
    type: the type of fracture of the image as a whole, as written; empty where none is stated.
    """

    file: str
    boxes: tuple[RawBox, ...] = ()
    image_name: str | None = None
    image_path: str | None = None
    folder: str | None = None
    other_names: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    relative: bool = False
    notes: tuple[tuple[str, str], ...] = ()
    fault: AnnotationError | None = None
    type: str = ""


@dataclass(frozen=True)
class ParsedExport:
    """One file that annotates many images.

    annotations: one per image that the file names. class_names: those that it declares, in order of their ids.
    problems: of items that belong to no image of the file, such as a box with an unknown image id.
    """

    annotations: tuple[RawAnnotation, ...]
    class_names: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
