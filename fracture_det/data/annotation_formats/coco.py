"""COCO JSON of any origin, read leniently: what is wrong with one image excludes that image alone."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fracture_det.data.annotation_formats.text import (
    MISSING,
    Note,
    expected,
    one_note_per_kind,
    parse_id,
    parse_number,
    parse_whole_number,
    read_json,
    show,
)
from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation, RawBox
from fracture_det.data.records import EXCLUDED, Problem
from fracture_det.data.stated_types import written_type
from fracture_det.structures.wording import counted

# Our own files hold the corners too, where x + width or y + height does not reproduce them to the last bit.
EXACT_KEY = "bbox_xyxy"
# Faults that a message lists; it counts the others.
SHOWN_FAULTS = 1_000
# Kinds of faults that a repair can lift; see `checks.REPAIR_OF_FAULT`.
REPEATED_ANNOTATION_ID, HEALTHY_IN_DOUBT = "repeated_annotation_id", "healthy_in_doubt"
# Keys under which other formats keep the boxes of an image inside its own entry.
_BOX_KEYS = ("annotations", "bbox", "bboxes", "boxes", "objects")

Id = int | str
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO file: its id (None without one), its entry in `images`, and what the file says of it."""

    id: Id | None
    entry: Mapping[str, Any]
    annotation: RawAnnotation


@dataclass(frozen=True)
class CocoFile:
    """The images of a COCO file that have a name, its class names in file order, and problems of everything else."""

    images: tuple[CocoImage, ...]
    class_names: tuple[str, ...]
    problems: tuple[Problem, ...]


def parse_coco(path: str | Path) -> ParsedExport:
    """Read a COCO file; see `load_coco`. Raises AnnotationError for a file that is not COCO."""
    content = load_coco(path)
    return ParsedExport(tuple(image.annotation for image in content.images), content.class_names, content.problems)


def load_coco(path: str | Path) -> CocoFile:
    """Read a COCO file: each image with its boxes, or with the fault that excludes it.

    A box is made from the polygon or the run-length mask where there is no `bbox`. An id is the same as number and as
    text. Ids and file names that repeat are faults of all their images. Where an entry of `annotations` belongs to no
    image, it may belong to any: images without a box are then in doubt rather than healthy.
    Raises AnnotationError for a file that is not COCO.
    """
    content, problems = _open(str(path))
    names, class_names = _categories(str(path), content["categories"], problems)
    images = _images(str(path), content["images"], problems)
    of_id = {image.id: image for image in images if image.id is not None}
    ids: list[tuple[Id, _Image]] = []
    unnamed_ids = orphans = 0
    for index, item in enumerate(content["annotations"]):
        place = f"annotations[{index}]" + (
            f" (id {show(item['id'])})" if isinstance(item, dict) and "id" in item else ""
        )
        try:
            image = _image_of(item, of_id)
        except ValueError as error:
            orphans += bool(item)  # null and {} say nothing of any image
            problems.append(Problem(str(path), "annotation_without_image", f"{place}: {error}", EXCLUDED))
            continue
        try:
            image.boxes.append(_box(item, names, image))
        except ValueError as error:
            image.faults.append((place, str(error)))
        try:
            if item.get("id") is None:
                unnamed_ids += 1
            else:
                ids.append((parse_id(item["id"])[0], image))
        except ValueError as error:
            image.faults.append((place, f"id: {error}"))
    if unnamed_ids:
        detail = f"{counted(unnamed_ids, 'box has', 'boxes have')} no own id; none is needed here"
        problems.append(Problem(str(path), "annotation_id_missing", detail))
    repeated = {annotation_id for annotation_id, n in Counter(number for number, _ in ids).items() if n > 1}
    for annotation_id, image in ids:
        if annotation_id in repeated:
            image.repeated_annotation_ids.append(annotation_id)
    named = [image for image in images if image.name]
    return CocoFile(
        tuple(CocoImage(image.id, image.entry, image.annotation(str(path), orphans)) for image in named),
        class_names,
        tuple(problems),
    )


@dataclass
class _Image:
    """One entry of `images` while the file is read. faults: (field, value)."""

    place: str
    entry: Mapping[str, Any]
    name: str = ""
    id: Id | None = None
    size: tuple[int, int] | None = None
    boxes: list[RawBox] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    fault_kind: str = "unreadable_annotation"
    repeated_annotation_ids: list[Id] = field(default_factory=list)

    def annotation(self, file: str, orphans: int) -> RawAnnotation:
        """Return what the file says of the image; orphans: how many boxes of the file belong to no image."""
        return RawAnnotation(
            f"{file}#{self.id}",
            tuple(self.boxes),
            image_name=self.name.rsplit("/", 1)[-1],
            image_path=self.name,
            size=self.size,
            notes=one_note_per_kind(self.notes),
            fault=self._fault(file, orphans),
            type=written_type(self.entry.get("attributes")),
        )

    def _fault(self, file: str, orphans: int) -> AnnotationError | None:
        if self.faults:
            (place, value), *others = self.faults
            value += "".join(f"; {other}: {what}" for other, what in others[: SHOWN_FAULTS - 1])
            more = len(self.faults) - SHOWN_FAULTS
            value += f"; and {more:,} more" if more > 0 else ""
            return AnnotationError(file, place, value, kind=self.fault_kind)
        if self.repeated_annotation_ids:
            ids = ", ".join(show(number) for number in dict.fromkeys(self.repeated_annotation_ids))
            value = f"other boxes of the file have the id {ids} too"
            return AnnotationError(file, "annotations id", value, kind=REPEATED_ANNOTATION_ID)
        if orphans and not self.boxes:
            lost = counted(orphans, "box of the file belongs", "boxes of the file belong")
            value = f"no box, but {lost} to no image, and may be of this one"
            return AnnotationError(file, self.place, value, kind=HEALTHY_IN_DOUBT)
        return None


def _open(file: str) -> tuple[Mapping[str, Any], list[Problem]]:
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise AnnotationError(file, "annotations", error.strerror or error) from error
    content, notes = read_json(file, data)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "score" in content[0]:
        raise AnnotationError(file, "json", "a list of detections with scores (COCO results), not a data set")
    for key in ("images", "annotations", "categories"):
        found = content.get(key, MISSING) if isinstance(content, dict) else MISSING
        if not isinstance(found, list):
            raise AnnotationError(file, key, expected("a list of a COCO file", found))
    return content, [Problem(file, kind, detail) for kind, detail in notes]


def _categories(file: str, items: Sequence[Any], problems: list[Problem]) -> tuple[dict[Id, str], tuple[str, ...]]:
    """Return the name of each category id, and the names in file order; ids that name two classes are left out."""
    names: dict[Id, str] = {}
    ambiguous: set[Id] = set()
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                raise ValueError(f"expected an object, got {show(item)}")
            number, name = _id(item), item.get("name", MISSING)
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"name: {expected('a text', name)}")
            if names.setdefault(number, name) != name:
                ambiguous.add(number)
                raise ValueError(f"the id {show(number)} is that of {names[number]!r} and of {name!r}")
        except ValueError as error:
            problems.append(Problem(file, "bad_category", f"categories[{index}]: {error}", EXCLUDED))
    return {number: name for number, name in names.items() if number not in ambiguous}, tuple(names.values())


def _images(file: str, items: Sequence[Any], problems: list[Problem]) -> list[_Image]:
    images = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            detail = f"images[{index}]: expected an object, got {show(item)}"
            problems.append(Problem(file, "image_without_name", detail, EXCLUDED))
            continue
        image = _image(_place("images", index, item), item)
        if not image.name:
            detail = f"{image.place}: file_name: {expected('a text', item.get('file_name', MISSING))}"
            problems.append(Problem(file, "image_without_name", detail, EXCLUDED))
        images.append(image)
    _find_repeated(images)
    return images


def _image(place: str, item: Mapping[str, Any]) -> _Image:
    name = item.get("file_name")
    image = _Image(place, item, name.replace("\\", "/") if isinstance(name, str) else "")
    try:
        image.id = _id(item)
    except ValueError as error:
        image.faults.append((place, str(error)))
    try:
        image.size = _size(item)
    except ValueError as error:
        image.faults.append((image.place, str(error)))
    if inside := [key for key in _BOX_KEYS if item.get(key)]:
        image.faults.append((image.place, f"{inside[0]}: boxes inside the image's own entry, where COCO has none"))
    return image


def _id(item: Mapping[str, Any]) -> Id:
    try:
        return parse_id(item.get("id", MISSING))[0]
    except ValueError as error:
        raise ValueError(f"id: {error}") from None


def _size(item: Mapping[str, Any]) -> tuple[int, int] | None:
    size = []
    for key in ("height", "width"):
        if item.get(key) is None:
            return None
        try:
            size.append(parse_whole_number(item[key])[0])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return size[0], size[1]


def _find_repeated(images: Sequence[_Image]) -> None:
    """Give every image a fault whose id, or whose name, is that of another image too."""
    of_id: dict[Id, list[_Image]] = defaultdict(list)
    of_name: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if image.id is not None:
            of_id[image.id].append(image)
        if image.name:
            of_name[unicodedata.normalize("NFC", image.name)].append(image)
    for kind, groups in (("repeated_file_name", of_name.values()), ("repeated_image_id", of_id.values())):
        for group in groups:
            for image in group if len(group) > 1 else ():
                others = ", ".join((other.name or other.place) for other in group if other is not image)
                if kind == "repeated_image_id":
                    fault = f"the id {show(image.id)} is also that of {others}; which boxes are whose is not known"
                else:
                    fault = f"the file name is listed {len(group)} times; which entry holds is not known"
                image.faults.insert(0, (image.place, fault))
                image.fault_kind = kind


def _place(key: str, index: int, item: Any) -> str:
    number = item.get("id") if isinstance(item, dict) else None
    return f"{key}[{index}]" + ("" if number is None else f" (id {show(number)})")


def _image_of(item: Any, of_id: Mapping[Id, _Image]) -> _Image:
    if not isinstance(item, dict):
        raise ValueError(f"expected an object, got {show(item)}")
    try:
        number = parse_id(item.get("image_id", MISSING))[0]
    except ValueError as error:
        raise ValueError(f"image_id: {error}") from None
    if number not in of_id:
        raise ValueError(f"image_id: no image has the id {show(item['image_id'])}")
    image = of_id[number]
    if isinstance(item["image_id"], str) != isinstance(image.entry["id"], str):
        detail = f"image_id {show(item['image_id'])} against the image's id {show(image.entry['id'])}; read as one id"
        image.notes.append(("id_as_text", detail))
    return image


def _box(item: Mapping[str, Any], names: Mapping[Id, str], image: _Image) -> RawBox:
    """Return one box as written. Raises ValueError, in words, for what is wrong with it."""
    try:
        category = parse_id(item.get("category_id", MISSING))[0]
    except ValueError as error:
        raise ValueError(f"category_id: {error}") from None
    if category not in names:
        raise ValueError(f"category_id: no category has the id {show(item['category_id'])}")
    if (crowd := item.get("iscrowd")) not in (None, 0, 1, "0", "1"):  # True and False are 1 and 0
        raise ValueError(f"iscrowd: expected 0 or 1, got {show(crowd)}")
    attributes = item.get("attributes")
    rotation = item.get("rotation") or (attributes.get("rotation") if isinstance(attributes, dict) else None) or 0
    try:
        degrees = parse_number(rotation)[0]
    except ValueError as error:
        raise ValueError(f"rotation: {error}") from None
    if not math.isfinite(degrees):
        raise ValueError(f"rotation: expected degrees, got {show(rotation)}")
    kind = written_type(attributes) or written_type({"type": item.get("type")})
    return RawBox(names[category], _corners(item, image), False, crowd in (1, "1"), degrees, kind)


def _corners(item: Mapping[str, Any], image: _Image) -> Corners:
    try:
        corners = _bbox_corners(item, image)
        if all(math.isfinite(value) for value in corners):
            return corners
        reason = f"bbox: {show(item['bbox'])} is not finite"
    except ValueError as error:
        corners, reason = None, str(error)
    outline = _outline_corners(item.get("segmentation"))
    if outline is not None:
        image.notes.append(("box_from_polygon", f"{reason}; the box around the segmentation was taken"))
        return outline
    if corners is not None:
        return corners  # with the values that the checks name
    raise ValueError(f"{reason}, and there is no segmentation")


def _bbox_corners(item: Mapping[str, Any], image: _Image) -> Corners:
    bbox = item.get("bbox", MISSING)
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"bbox: {expected('4 numbers', bbox)}")
    try:
        numbers = [parse_number(value) for value in bbox]
        x, y, width, height = (number for number, _ in numbers)
        exact = [parse_number(value)[0] for value in item.get(EXACT_KEY) or ()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"bbox: {error}") from None
    image.notes += [note for _, notes in numbers for note in notes]
    corners = (x, y, x + width, y + height)
    # Only a last bit may differ: a `bbox` edited by hand wins over stale corners.
    if len(exact) == 4 and all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(exact, corners, strict=True)):
        return exact[0], exact[1], exact[2], exact[3]
    return corners


def _outline_corners(segmentation: Any) -> Corners | None:
    """Return the box around polygons [[x, y, ...], ...] or a run-length mask; None where there is neither."""
    try:
        if isinstance(segmentation, dict):
            return _mask_corners(segmentation)
        if not isinstance(segmentation, list) or not segmentation:
            return None
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        if not all(isinstance(polygon, list) for polygon in polygons):
            return None
        points = [parse_number(value)[0] for polygon in polygons for value in polygon]
    except (ValueError, TypeError):
        return None
    xs, ys = points[0::2], points[1::2]
    if len(points) < 6 or any(len(polygon) % 2 for polygon in polygons) or not all(map(math.isfinite, points)):
        return None
    return min(xs), min(ys), max(xs), max(ys)


def _mask_corners(mask: Mapping[str, Any]) -> Corners | None:
    """Return the box around a run-length mask (columns from left to right), as pycocotools' toBbox does."""
    counts = mask.get("counts")
    height, _ = (parse_whole_number(value)[0] for value in mask.get("size") or ())
    runs = _unpack_runs(counts) if isinstance(counts, str) else [parse_whole_number(n)[0] for n in counts or ()]
    if height < 1 or min(runs, default=0) < 0 or sum(runs) > 2**40:
        return None
    ends = np.cumsum(np.array(runs, dtype=np.int64))
    first, last = ends[0::2][: len(runs) // 2], ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]
    if not len(first):
        return None
    # A run over the end of a column covers the bottom of one and the top of the next.
    within = first // height == last // height
    y0 = np.where(within, first % height, 0).min()
    y1 = np.where(within, last % height, height - 1).max()
    return float((first // height).min()), float(y0), float((last // height).max() + 1), float(y1 + 1)


def _unpack_runs(text: str) -> list[int]:
    """Return the runs of COCO's compressed mask: base 32, five bits a letter, differences from the run before last."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"counts: {letter!r} is no letter of a compressed mask")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value |= -1 << shift if bits & 16 else 0
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs
