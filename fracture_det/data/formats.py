"""Reading and writing whole data sets in LabelImg VOC, YOLO and COCO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fracture_det.data.annotation_formats.voc import voc_xml
from fracture_det.data.annotation_formats.yolo import CLASSES_FILE, yolo_text
from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox
from fracture_det.data.checks import AnnotationRules, build_record
from fracture_det.data.coco import write_coco
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.pairing import FORMATS, AnnotationSource, open_annotations
from fracture_det.data.records import EXCLUDED, REPAIRED, Dataset, ImageRecord, Problem


@dataclass(frozen=True)
class CheckedDataset:
    """The records that can be used, every problem, and the SHA-256 of each annotation file by image file name.

    faults: how many annotations cannot be read. class_counts: boxes by the class name in the annotations.
    """

    dataset: Dataset
    problems: tuple[Problem, ...]
    annotation_sha256: Mapping[str, str]
    faults: int = 0
    class_counts: Mapping[str, int] = field(default_factory=dict)


def read_annotations(
    path: str | Path,
    fmt: str,
    class_names: Sequence[str],
    images: str | Path,
    *,
    class_map: Mapping[str, str] | None = None,
    yolo_names: Sequence[str] | None = None,
    workers: int = 1,
) -> Dataset:
    """Read the annotations at `path` for the images under the folder `images`, strictly.

    fmt: voc, yolo or coco. Raises AnnotationError with file, field and value for the first problem that would cost an
    image: unreadable, unlabelled, an annotation that is broken or whose boxes cannot be true. The tool
    prepare_dataset.py reads leniently and reports all of them instead.
    """
    source = open_annotations(path, fmt, images=images, yolo_names=yolo_names)
    infos = read_image_infos(images, source.images, workers=workers)
    checked = build_dataset(infos, source, AnnotationRules(tuple(class_names), class_map or {}))
    names = set(source.images)
    for problem in checked.problems:
        if problem.action == EXCLUDED and problem.file in names:
            raise AnnotationError(problem.file, problem.kind, problem.detail, kind=problem.kind)
    return checked.dataset


def build_dataset(
    infos: Sequence[ImageInfo],
    source: AnnotationSource,
    rules: AnnotationRules,
    *,
    missing_is_healthy: bool = False,
    called_fractured: Mapping[str, str] | None = None,
    progress: Callable[[Iterable[ImageInfo], int], Iterable[ImageInfo]] | None = None,
) -> CheckedDataset:
    """Read every annotation leniently: each image becomes a record, or its problems say why it is excluded.

    Image ids number all image files from 1 in order of their names, so that they do not depend on the split or on
    what is excluded. missing_is_healthy: an image without annotation counts as reviewed and healthy, unless a file
    that was not used may be its annotation, or it is one of `called_fractured`: {image: what calls it so}.
    """
    called = called_fractured or {}
    show = progress or (lambda stream, _total: stream)
    reader = _AnnotationReader(source, rules)
    missing = []
    for image_id, info in enumerate(show(infos, len(infos)), 1):
        reader.problems += _name_problems(info.file_name)
        if info.error is not None:
            kind = "truncated_image" if "truncated" in info.error else "unreadable_image"
            reader.exclude(info.file_name, kind, info.error)
        elif info.file_name in source.excluded_images:
            continue
        elif source.has(info.file_name):
            reader.read(image_id, info)
        else:
            missing.append((image_id, info))
    # Only now is it known what the annotations of other images say of these.
    possible = source.possible_annotations(info.file_name for _, info in missing)
    for image_id, info in missing:
        reason = possible.get(info.file_name)
        if not missing_is_healthy:
            detail = "no annotation; not taken as healthy" + (f"; {reason}" if reason else "")
            reader.exclude(info.file_name, "unlabelled", detail)
        elif info.file_name in called:
            reader.exclude(info.file_name, "called_fractured", f"not taken as healthy: {called[info.file_name]}")
        elif reason:
            reader.exclude(info.file_name, "possibly_annotated", f"not taken as healthy: {reason}")
        else:
            reader.assume_healthy(image_id, info)
    for record in reader.records:
        if not record.fractured and record.file_name in called:
            detail = f"its annotation has no box, but {called[record.file_name]}"
            reader.problems.append(Problem(record.file_name, "called_fractured", detail))
    records = sorted(reader.records, key=lambda record: record.image_id)
    return CheckedDataset(
        Dataset(tuple(records), rules.class_names),
        (*source.problems, *reader.problems),
        reader.digests,
        reader.faults,
        dict(reader.class_counts),
    )


class _AnnotationReader:
    """Reads one annotation after the other, and keeps what comes of them."""

    def __init__(self, source: AnnotationSource, rules: AnnotationRules) -> None:
        self._source, self._rules = source, rules
        self.records: list[ImageRecord] = []
        self.problems: list[Problem] = []
        self.digests: dict[str, str] = {}
        self.class_counts: Counter[str] = Counter()
        self.faults = 0

    def exclude(self, file_name: str, kind: str, detail: str) -> None:
        """Note that an image is left out, and the annotation file that is left out with it."""
        self.problems.append(self._with_annotation(Problem(file_name, kind, detail, EXCLUDED)))

    def read(self, image_id: int, info: ImageInfo) -> None:
        """Read the annotation of one image."""
        name = info.file_name
        try:
            annotation, self.digests[name] = self._source.read(name)
        except AnnotationError as error:
            self.faults += 1
            self.exclude(name, error.kind, str(error))
            return
        self.class_counts.update(raw.name for raw in annotation.boxes)
        record, found = build_record(image_id, info, annotation, self._rules)
        told = {(problem.kind, problem.detail) for problem in found}
        found += [Problem(name, kind, detail) for kind, detail in annotation.notes if (kind, detail) not in told]
        fault = annotation.fault
        if fault is not None and not any(p.kind == fault.kind and p.action == REPAIRED for p in found):
            self.faults += 1
            record = None
            if not any(p.kind == fault.kind and p.action == EXCLUDED for p in found):
                found.append(Problem(name, fault.kind, str(fault), EXCLUDED))
        self.problems += found if record is not None else map(self._with_annotation, found)
        if record is not None:
            self.records.append(record)

    def assume_healthy(self, image_id: int, info: ImageInfo) -> None:
        """Take an image without annotation as healthy."""
        self.problems.append(Problem(info.file_name, "assumed_healthy", "no annotation; taken as healthy, as asked"))
        record, found = build_record(image_id, info, RawAnnotation("", size=info.size), self._rules)
        self.problems += found
        if record is not None:
            self.records.append(record)

    def _with_annotation(self, problem: Problem) -> Problem:
        file = self._source.annotation_name(problem.file)
        if problem.action != EXCLUDED or not file or file in problem.detail:
            return problem
        return replace(problem, detail=f"{problem.detail} (annotation {file})")


def write_annotations(dataset: Dataset, path: str | Path, fmt: str) -> None:
    """Write a data set: a folder of LabelImg XML or of YOLO text with classes.txt, or one COCO file.

    Files of a folder follow the images' relative paths. VOC holds whole pixels, clamped up to 1 as by LabelImg; YOLO
    six decimals; COCO everything. Raises ValueError for an unknown format, two images that need one file, or crowd
    regions in a format that has none: left out, they would read as healthy bone.
    """
    if fmt not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {fmt!r}")
    crowded = next((record.file_name for record in dataset if len(record.crowd_boxes)), None)
    if fmt != "coco" and crowded is not None:
        raise ValueError(f"{crowded}: a region marked iscrowd, which {fmt} cannot hold")
    path = Path(path)
    if fmt == "coco":
        write_coco(dataset, path)
        return
    path.mkdir(parents=True, exist_ok=True)
    written: dict[PurePosixPath, str] = {}
    for record in dataset:
        target = PurePosixPath(record.file_name).with_suffix(".xml" if fmt == "voc" else ".txt")
        if target in written:
            raise ValueError(f"{record.file_name} and {written[target]} need the same file {target}")
        written[target] = record.file_name
        boxes = tuple(
            RawBox(dataset.class_names[index], (box[0], box[1], box[2], box[3]))
            for box, index in zip(record.boxes.tolist(), record.classes.tolist(), strict=True)
        )
        if fmt == "voc":
            text = voc_xml(record.file_name, record.size, boxes)
        else:
            text = yolo_text(record.size, boxes, dataset.class_names)
        (path / target).parent.mkdir(parents=True, exist_ok=True)
        (path / target).write_text(text, encoding="utf-8")
    if fmt == "yolo":
        (path / CLASSES_FILE).write_text("".join(f"{name}\n" for name in dataset.class_names), encoding="utf-8")


def _name_problems(file_name: str) -> list[Problem]:
    problems = []
    if not file_name.isascii():
        detail = "characters outside ASCII; some tools on some systems cannot open it"
        problems.append(Problem(file_name, "non_ascii_name", detail))
    if "." in PurePosixPath(file_name).stem:
        problems.append(Problem(file_name, "dotted_name", "a dot before the suffix; some tools cut the name there"))
    return problems
