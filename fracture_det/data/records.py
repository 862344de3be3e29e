"""Data set records: radiographs with their truth boxes, and problems of their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.fracture_types import fracture_types
from fracture_det.structures.image_files import escaped

KEPT, REPAIRED, EXCLUDED = "kept", "repaired", "excluded"
# Of boxes in annotation files, and of whole radiographs in `ImageRecord.attributes`.
TYPE_ATTRIBUTE = "type"


@dataclass(frozen=True)
class Problem:
    """One problem of one file of a data set.

    kind: a short name for counting, such as `size_mismatch`. detail: what exactly, in words.
    action: the file was `kept` as it is, `repaired` as requested, or `excluded`.
    Bytes of file names that are not UTF-8 become `\\xff` and the like, so that every table can hold them.
    """

    file: str
    kind: str
    detail: str
    action: str = KEPT

    def __post_init__(self) -> None:
        if self.action not in (KEPT, REPAIRED, EXCLUDED):
            raise ValueError(f"Problem.action: expected kept, repaired or excluded, got {self.action!r}")
        object.__setattr__(self, "file", escaped(self.file))
        object.__setattr__(self, "detail", escaped(self.detail))


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One reviewed radiograph with its truth boxes; no boxes and no crowd regions mean reviewed and healthy.

    image_id: number, unique in its Dataset.
    file_name: path relative to the image folder, with forward slashes.
    height, width: pixels of the upright image (EXIF orientation applied).
    group_id: patient, or a cluster of duplicates or neighbours; a group is never divided between splits.
    anatomy: body part, or None where unknown.
    boxes: (M, 4) float64, x0 y0 x1 y1 in pixels of the upright image.
    classes: (M,) int64, indices into the Dataset's class names.
    attributes: further metadata columns (view, hardware, ...), for strata.
    crowd_boxes: (K, 4) float64, COCO's `iscrowd` regions, in which fractures are not told apart: neither truth nor
    background, so that no metric of boxes counts a box in them.
    crowd_classes: (K,) int64, their classes; the first class where not given.
    types: of each of the M boxes, its type of fracture (a name of configs/fracture_types.yaml), or None where unknown;
    of all unknown where not given.
    """

    image_id: int
    file_name: str
    height: int
    width: int
    group_id: str
    anatomy: str | None = None
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    attributes: Mapping[str, str] = field(default_factory=dict)
    crowd_boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    crowd_classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    types: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float64)
        classes = np.asarray(self.classes, dtype=np.int64)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or classes.shape != (len(boxes),):
            raise ValueError(
                f"{self.file_name}: expected boxes (M, 4) and classes (M,), got {boxes.shape} and {classes.shape}"
            )
        if self.height < 1 or self.width < 1:
            raise ValueError(f"{self.file_name}: expected a positive size, got {self.height} x {self.width}")
        crowd_boxes = np.asarray(self.crowd_boxes, dtype=np.float64)
        crowd_classes = np.asarray(self.crowd_classes, dtype=np.int64)
        if not len(crowd_classes):
            crowd_classes = np.zeros(len(crowd_boxes), dtype=np.int64)
        if crowd_boxes.ndim != 2 or crowd_boxes.shape[1] != 4 or crowd_classes.shape != (len(crowd_boxes),):
            raise ValueError(
                f"{self.file_name}: expected crowd_boxes (K, 4) and crowd_classes (K,), got {crowd_boxes.shape} and "
                f"{crowd_classes.shape}"
            )
        types = tuple(self.types) if any(self.types) else (None,) * len(boxes)
        if len(types) != len(boxes):
            raise ValueError(f"{self.file_name}: expected a type, or None, for each of {len(boxes)} boxes, got {types}")
        object.__setattr__(self, "types", types)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "crowd_boxes", crowd_boxes)
        object.__setattr__(self, "crowd_classes", crowd_classes)
        object.__setattr__(self, "classes", classes)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def fractured(self) -> bool:
        """True when at least one box or crowd region is marked: a region holds fractures that are not told apart."""
        return len(self.boxes) > 0 or len(self.crowd_boxes) > 0

    @property
    def image_type(self) -> str | None:
        """The type of fracture that is stated for the radiograph as a whole (attribute `type`); None where none is."""
        kind = fracture_types().find(self.attributes.get(TYPE_ATTRIBUTE, ""))
        return None if kind is None else kind.name


@dataclass(frozen=True, eq=False)
class Dataset:
    """Reviewed radiographs and the names of the classes that their boxes point to.

    notes: sentences about what was read with tolerance, for a report on the data.
    """

    records: tuple[ImageRecord, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(self.records))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        ids = [record.image_id for record in self.records]
        if len(set(ids)) != len(ids):
            raise ValueError("Dataset: two records share one image_id")
        for record in self.records:
            classes = np.concatenate([record.classes, record.crowd_classes])
            if len(classes) and not (classes.min() >= 0 and classes.max() < len(self.class_names)):
                raise ValueError(f"{record.file_name}: class index outside 0..{len(self.class_names) - 1}")

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self.records)
