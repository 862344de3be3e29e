"""Check an image against its annotation: together they become a record, or problems say why not.

An image is excluded rather than kept with a box missing: a fracture without its box would be taught as healthy bone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fracture_det.data.annotation_formats.coco import HEALTHY_IN_DOUBT, REPEATED_ANNOTATION_ID
from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox
from fracture_det.data.image_info import ImageInfo, read_image_info
from fracture_det.data.records import EXCLUDED, KEPT, REPAIRED, TYPE_ATTRIBUTE, Dataset, ImageRecord, Problem
from fracture_det.data.stated_types import UNKNOWN_TYPE, known_type, no_type, split_target, states_type
from fracture_det.structures.boxes import around_rotated, box_iou
from fracture_det.structures.image_files import list_image_names
from fracture_det.structures.orientations import EXIF_ORIENTATIONS, orient_boxes

REPAIRS = {
    "clip": "cut boxes that reach outside the image to its edge",
    "swap": "exchange xmin and xmax (ymin and ymax) where they are reversed",
    "rescale": "scale boxes by the ratio of the true image size to the size in the XML, where these differ",
    "turn": "turn boxes with the EXIF orientation, where the XML states the size before turning",
    "drop-box": "leave out boxes without area, under 1 px, outside or not finite, and keep the image's other boxes",
    "drop-unknown": "leave out boxes of an unknown class, and keep the image's other boxes",
    "drop-difficult": "leave out boxes marked `difficult`, and keep the image's other boxes",
    "drop-duplicates": "keep one of several equal boxes of one class",
    "rotate": "take the upright box around the corners of a box that the file rotates",
    "renumber": "read boxes whose id another box of the file has too",
    "drop-orphans": "believe that boxes which belong to no image of a COCO file are of none of its images",
}
# Kinds of faults of whole annotations that a repair can lift.
REPAIR_OF_FAULT = {REPEATED_ANNOTATION_ID: "renumber", HEALTHY_IN_DOUBT: "drop-orphans"}
# Six decimals of YOLO are half of a millionth of the width; floats add less. More than this is reported.
ROUNDING_PX = 0.01
# A box with a shorter side holds no pixel.
LEAST_SIDE_PX = 1.0
# Two boxes of one class with at least this IoU are reported: one fracture marked twice, more likely than two.
NEAR_DUPLICATE_IOU = 0.9

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class AnnotationRules:
    """How annotations are understood.

    class_names: the final classes. class_map: name in the files -> final class, or class and type as `fracture:spiral`.
    repairs: keys of REPAIRS. types_from_classes: a name that is a type of fracture (configs/fracture_types.yaml), and
    no class, means the first class, of that type.
    """

    class_names: tuple[str, ...] = ("fracture",)
    class_map: Mapping[str, str] = field(default_factory=dict)
    repairs: frozenset[str] = frozenset()
    types_from_classes: bool = False

    def __post_init__(self) -> None:
        for name, target in self.class_map.items():
            try:
                split_target(target, self.class_names)
            except ValueError as error:
                raise ValueError(f"class map {name}={target}: {error}") from None
        unknown = sorted(set(self.repairs) - set(REPAIRS))
        if unknown:
            raise ValueError(f"repair {unknown[0]!r}: expected one of {', '.join(REPAIRS)}")

    def class_index(self, name: str) -> int | None:
        """Return the index of the final class that `name` stands for, or None."""
        target = self._target(name)[0]
        return self.class_names.index(target) if target in self.class_names else None

    def class_type(self, name: str) -> str | None:
        """Return the type of fracture that `name` states besides its class, or None."""
        return self._target(name)[1]

    def _target(self, name: str) -> tuple[str, str | None]:
        if name in self.class_map:
            return split_target(self.class_map[name], self.class_names)
        if self.types_from_classes and name not in self.class_names and (kind := known_type(name)) is not None:
            return self.class_names[0], kind
        return name, None


@dataclass
class _ImageProblems:
    """The problems of one image, in the order of their discovery.

    stored: the image is one of a data set that was prepared before, for which no repairs are offered.
    """

    file: str
    rules: AnnotationRules
    stored: bool = False
    noted: list[Problem] = field(default_factory=list)

    def add(self, kind: str, detail: str, action: str = KEPT) -> None:
        self.noted.append(Problem(self.file, kind, detail, action))

    def repair_or_exclude(self, kind: str, detail: str, repair: str) -> bool:
        """Note a problem that `repair` corrects; return whether it was asked for. If not, the image is excluded."""
        repaired = repair in self.rules.repairs
        hint = f"; {REPAIRS[repair]}" if repaired else f"; --repair {repair} would {REPAIRS[repair]}"
        self.add(kind, detail + ("" if self.stored else hint), REPAIRED if repaired else EXCLUDED)
        return repaired

    @property
    def excluded(self) -> bool:
        """Whether one of them excludes the image."""
        return any(problem.action == EXCLUDED for problem in self.noted)


def build_record(
    image_id: int, info: ImageInfo, annotation: RawAnnotation, rules: AnnotationRules, *, stored: bool = False
) -> tuple[ImageRecord | None, list[Problem]]:
    """Return the record of one readable image, or None when it is excluded, and every problem on the way.

    The record's group is the file name and its anatomy None; both are filled in later from metadata.
    stored: the image is one of a data set that was prepared before. The checks are the same, but no repairs are
    offered, and an image with crowd regions alone is kept: evaluation knows to ignore them.
    """
    if info.size is None:
        raise ValueError(f"{info.file_name}: an unreadable image has no record")
    problems = _ImageProblems(info.file_name, rules, stored)
    for kind, detail in annotation.notes:
        problems.add(kind, detail)
    if annotation.fault is not None and not _lift(annotation.fault, problems):
        return None, problems.noted
    _check_names(info.file_name, annotation, problems)
    marks = _usable_marks(info, annotation, problems)
    crowd = np.array([mark.crowd for mark in marks], dtype=bool)
    corners = np.array([mark.box for mark in marks], dtype=np.float64).reshape(-1, 4)
    labels = np.array([mark.class_index for mark in marks], dtype=np.int64)
    single = np.flatnonzero(~crowd)
    types = [marks[index].type for index in single]
    keep = _without_duplicates(corners[single], labels[single], types, problems)
    kept = single[keep]
    if annotation.boxes and not marks and not problems.excluded:
        problems.add("no_box_left", "every box was left out; the image is not thereby healthy", EXCLUDED)
    elif crowd.any() and crowd.all() and not stored:
        detail = "only crowd regions (iscrowd) are marked: neither a box to learn from, nor a healthy image"
        problems.add("only_crowd", detail, EXCLUDED)
    if problems.excluded:
        return None, problems.noted
    record = ImageRecord(
        image_id,
        info.file_name,
        *info.size,
        group_id=info.file_name,
        boxes=corners[kept],
        classes=labels[kept],
        crowd_boxes=corners[crowd],
        crowd_classes=labels[crowd],
        types=tuple(kind for kind, is_kept in zip(types, keep, strict=True) if is_kept),
        attributes=_image_type(annotation, problems),
    )
    return record, problems.noted


class _Mark(NamedTuple):
    """One usable box in pixels of the upright image. type: of fracture, or None where unknown."""

    box: Box
    class_index: int
    type: str | None
    crowd: bool


def _usable_marks(info: ImageInfo, annotation: RawAnnotation, problems: _ImageProblems) -> list[_Mark]:
    """Return what can be used of the boxes of an annotation; notes the rest."""
    assert info.size is not None
    fractions = _look_like_fractions(annotation)
    marks = []
    for raw in _to_upright_px(info, annotation, problems):
        index = _class_of(raw, problems)
        box = _clip_box(raw, info.size, problems, fractions=fractions)
        if index is not None and box is not None:
            marks.append(_Mark(box, index, _type_of(raw, problems), raw.crowd))
    return marks


def check_record(record: ImageRecord, class_names: Sequence[str]) -> list[Problem]:
    """Return what is wrong with the truth of one image, by the checks of `build_record`."""
    marks = ((record.boxes, record.classes, False), (record.crowd_boxes, record.crowd_classes, True))
    boxes = tuple(
        RawBox(class_names[index], (x0, y0, x1, y1), crowd=crowd)
        for corners, labels, crowd in marks
        for (x0, y0, x1, y1), index in zip(corners.tolist(), labels.tolist(), strict=True)
    )
    info = ImageInfo(record.file_name, record.size, 1, "", None)
    annotation = RawAnnotation("", boxes, size=record.size)
    return build_record(record.image_id, info, annotation, AnnotationRules(tuple(class_names)), stored=True)[1]


def check(dataset: Dataset, image_root: str | Path) -> list[Problem]:
    """Compare a data set with its image files: missing, unreadable, of another size, boxes that cannot be true."""
    present = set(list_image_names(image_root))
    problems: list[Problem] = []
    for record in dataset:
        if record.file_name not in present:
            problems.append(Problem(record.file_name, "missing_image", f"not in {image_root}", EXCLUDED))
            continue
        info = read_image_info(image_root, record.file_name)
        if info.size is None:
            problems.append(Problem(record.file_name, "unreadable_image", str(info.error), EXCLUDED))
        elif info.size != record.size:
            detail = f"{_wh(record.size)} in the data set, {_wh(info.size)} in the file"
            problems.append(Problem(record.file_name, "size_mismatch", detail, EXCLUDED))
        problems += check_record(record, dataset.class_names)
    return problems


def _lift(fault: AnnotationError, problems: _ImageProblems) -> bool:
    """Note the fault of an annotation; return whether a repair lifts it."""
    repair = REPAIR_OF_FAULT.get(fault.kind)
    if repair is not None:
        return problems.repair_or_exclude(fault.kind, f"{fault.field}: {fault.value}", repair)
    problems.add(fault.kind, str(fault), EXCLUDED)
    return False


def _look_like_fractions(annotation: RawAnnotation) -> bool:
    """Whether all coordinates, meant as pixels, lie in 0..1, as fractions of the image do."""
    values = [value for raw in annotation.boxes if raw.finite for value in raw.box]
    return bool(values) and not annotation.relative and min(values) >= 0 and max(values) <= 1


def _without_duplicates(
    boxes: NDArray[np.float64], classes: NDArray[np.int64], types: list[str | None], problems: _ImageProblems
) -> NDArray[np.bool_]:
    """Return which boxes (M,) are not those of an earlier one again; report these, and boxes that nearly are.

    types: of the boxes; an earlier box gets, in place, what is known of it and of those that are it again.
    """
    keep = np.ones(len(boxes), dtype=bool)
    for index in range(1, len(boxes)):
        iou = box_iou(boxes[index], boxes[:index])[0]
        iou[~keep[:index]] = 0.0
        near = int(iou.argmax())
        if iou[near] < NEAR_DUPLICATE_IOU:
            continue
        here, there = _show(boxes[index].tolist()), _show(boxes[near].tolist())
        equal = np.abs(boxes[index] - boxes[near]).max() <= ROUNDING_PX
        if classes[index] != classes[near]:
            if equal:
                problems.add("near_duplicate_box", f"box {here} is marked with two classes")
        elif equal:
            keep[index] = not problems.repair_or_exclude("duplicate_box", f"box {here} twice", "drop-duplicates")
            types[near] = _one_type(types[near], types[index], f"box {here} twice", problems)
        else:
            problems.add("near_duplicate_box", f"boxes {there} and {here} overlap with IoU {iou[near]:.2f}")
    return keep


def _check_names(file_name: str, annotation: RawAnnotation, problems: _ImageProblems) -> None:
    name = file_name.rsplit("/", 1)[-1]
    written = annotation.image_name
    # LabelImg saves the name with its suffix; some converters leave the suffix out.
    if written is not None and written not in (name, name.rsplit(".", 1)[0]):
        problems.add("wrong_filename", f"<filename> says {written!r}; matched by the name of the annotation file")
    if annotation.image_path is not None:
        tail = annotation.image_path.replace("\\", "/").rsplit("/", 1)[-1]
        if tail != name:
            problems.add("wrong_path", f"<path> ends in {tail!r}; matched by the name of the annotation file")


def _to_upright_px(info: ImageInfo, annotation: RawAnnotation, problems: _ImageProblems) -> Sequence[RawBox]:
    """Return the boxes in pixels of the upright image, noting what the stated size and the EXIF tag say."""
    assert info.size is not None
    assert info.stored_size is not None
    height, width = info.size
    if annotation.relative:
        if info.orientation != 1:
            problems.add("exif_orientation", f"orientation {info.orientation}; fractions taken in the upright frame")
        return _scaled(annotation.boxes, width, height)
    stated = annotation.size
    if info.orientation != 1 and stated == info.size:
        square = " (both frames have this size)" if info.stored_size == info.size else ""
        problems.add("exif_orientation", f"orientation {info.orientation}; size stated as upright{square}")
    elif info.orientation != 1 and stated == info.stored_size:
        detail = f"orientation {info.orientation}; size {_wh(stated)} stated as before turning"
        if not annotation.boxes:
            problems.add("exif_size_unturned", f"{detail}; no box to turn")
        elif problems.repair_or_exclude("exif_size_unturned", detail, "turn"):
            boxes = np.array([raw.box for raw in annotation.boxes])
            upright = orient_boxes(boxes, EXIF_ORIENTATIONS[info.orientation], info.stored_size).tolist()
            return [replace(raw, box=tuple(box)) for raw, box in zip(annotation.boxes, upright, strict=True)]
    elif info.orientation != 1:
        problems.add("exif_orientation", f"orientation {info.orientation}; boxes taken in the upright frame")
    if stated is None:
        problems.add("size_missing", f"no size stated; the image has {_wh(info.size)}")
    elif 0 in stated:
        problems.add("size_zero", f"size stated as {_wh(stated)}; the image has {_wh(info.size)}; boxes are in pixels")
    elif stated not in (info.size, info.stored_size):
        detail = f"size stated as {_wh(stated)}; the image has {_wh(info.size)}"
        if not annotation.boxes:
            problems.add("size_mismatch", f"{detail}; no box to scale")
        elif min(stated) < 0:
            problems.add("size_mismatch", f"{detail}; a negative size", EXCLUDED)
        elif problems.repair_or_exclude("size_mismatch", detail, "rescale"):
            return _scaled(annotation.boxes, width / stated[1], height / stated[0])
    return annotation.boxes


def _scaled(boxes: Sequence[RawBox], x: float, y: float) -> list[RawBox]:
    return [replace(raw, box=(raw.box[0] * x, raw.box[1] * y, raw.box[2] * x, raw.box[3] * y)) for raw in boxes]


def _class_of(raw: RawBox, problems: _ImageProblems) -> int | None:
    rules = problems.rules
    index = rules.class_index(raw.name)
    if index is None:
        detail = f"class {raw.name!r}, expected {', '.join((*rules.class_names, *rules.class_map))} (see --class-map)"
        problems.repair_or_exclude("unknown_class", detail, "drop-unknown")
        return None
    if raw.difficult:
        if "drop-difficult" in rules.repairs:
            problems.repair_or_exclude("difficult", f"box {_show(raw.box)} is marked difficult", "drop-difficult")
            return None
        problems.add("difficult", f"box {_show(raw.box)} is marked difficult; used like any other")
    return index


def _type_of(raw: RawBox, problems: _ImageProblems) -> str | None:
    """Return the type of fracture that the class of a box or its attribute states; what is no type is noted."""
    of_class, of_attribute, where = problems.rules.class_type(raw.name), None, f"box {_show(raw.box)}"
    if states_type(raw.type):
        of_attribute = known_type(raw.type)
        if of_attribute is None:
            problems.add(UNKNOWN_TYPE, f"attribute type of {where}: {no_type(raw.type)}; it does not count")
    return _one_type(of_class, of_attribute, where, problems)


def _one_type(first: str | None, second: str | None, where: str, problems: _ImageProblems) -> str | None:
    """Return the type that two statements on a box give, None where they differ."""
    if first is not None and second is not None and first != second:
        problems.add("types_differ", f"{where} is of type {first} and of type {second}; its type counts as unknown")
        return None
    return first or second


def _image_type(annotation: RawAnnotation, problems: _ImageProblems) -> dict[str, str]:
    """Return the attribute with the type of fracture that an annotation states of its image as a whole."""
    if problems.stored or not states_type(annotation.type):
        return {}
    kind = known_type(annotation.type)
    if kind is None:
        problems.add(UNKNOWN_TYPE, f"attribute type of the image: {no_type(annotation.type)}; it does not count")
        return {}
    return {TYPE_ATTRIBUTE: kind}


def _clip_box(raw: RawBox, size: tuple[int, int], problems: _ImageProblems, *, fractions: bool) -> Box | None:
    """Return the box within the image, or None when nothing usable is left; notes what was wrong."""
    height, width = size
    if not raw.finite:
        problems.repair_or_exclude("box_not_finite", f"box {_show(raw.box)}", "drop-box")
        return None
    x0, y0, x1, y1 = raw.box
    if x0 > x1 or y0 > y1:
        if not problems.repair_or_exclude("box_reversed", f"box {_show(raw.box)} ends before it begins", "swap"):
            return None
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    where = f"box {_show(raw.box)} in an image of {_wh(size)}"
    if x0 == x1 or y0 == y1:
        problems.repair_or_exclude("box_no_area", where, "drop-box")
        return None
    if fractions or min(x1 - x0, y1 - y0) < LEAST_SIDE_PX - ROUNDING_PX:
        question = "; all boxes lie in 0..1: were fractions of the image taken for pixels?" if fractions else ""
        problems.repair_or_exclude("box_tiny", f"{where} has a side under 1 px{question}", "drop-box")
        return None
    # Turned by 180 degrees, a box is itself.
    if raw.rotation % 180:
        detail = f"{where} is rotated by {raw.rotation:g} degrees, which its four numbers do not contain"
        if not problems.repair_or_exclude("box_rotated", detail, "rotate"):
            return None
        x0, y0, x1, y1 = around_rotated((x0, y0, x1, y1), raw.rotation)
    cut = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    overshoot = max(abs(a - b) for a, b in zip(cut, (x0, y0, x1, y1), strict=True))
    if not (cut[0] < cut[2] and cut[1] < cut[3]):
        problems.repair_or_exclude("box_outside", f"{where}: nothing of it is inside", "drop-box")
        return None
    if overshoot > ROUNDING_PX:
        return cut if problems.repair_or_exclude("box_outside", where, "clip") else None
    return cut


def _show(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def _wh(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
