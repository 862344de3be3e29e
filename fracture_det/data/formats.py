"""Reading and writing whole data sets in LabelImg VOC, YOLO and COCO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fracture_det.data.annotation_formats.voc import voc_xml
from fracture_det.data.annotation_formats.yolo import CLASSES_FILE, yolo_text
from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox
from fracture_det.data.checks import AnnotationRules, build_record
from fracture_det.data.coco import write_coco
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.pairing import FORMATS, AnnotationSource, open_annotations
from fracture_det.data.records import EXCLUDED, Dataset, ImageRecord, Problem
from fracture_det.structures.image_files import list_image_names


@dataclass(frozen=True)
class CheckedDataset:
    """The records that can be used, every problem, and the SHA-256 of each annotation file by image file name."""

    dataset: Dataset
    problems: tuple[Problem, ...]
    annotation_sha256: Mapping[str, str]


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
    infos = read_image_infos(images, list_image_names(images), workers=workers)
    source = open_annotations(path, fmt, [info.file_name for info in infos], yolo_names=yolo_names)
    checked = build_dataset(infos, source, AnnotationRules(tuple(class_names), class_map or {}))
    for problem in checked.problems:
        if problem.action == EXCLUDED:
            raise AnnotationError(problem.file, problem.kind, problem.detail, kind=problem.kind)
    return checked.dataset


def build_dataset(
    infos: Sequence[ImageInfo],
    source: AnnotationSource,
    rules: AnnotationRules,
    *,
    missing_is_healthy: bool = False,
    progress: Callable[[Iterable[ImageInfo], int], Iterable[ImageInfo]] | None = None,
) -> CheckedDataset:
    """Read every annotation leniently: each image becomes a record, or its problems say why it is excluded.

    Image ids number all image files from 1 in order of their names, so that they do not depend on the split or on
    what is excluded. missing_is_healthy: an image without annotation counts as reviewed and healthy.
    """
    show = progress or (lambda stream, _total: stream)
    records: list[ImageRecord] = []
    problems = list(source.problems)
    excluded = {problem.file for problem in source.problems if problem.action == EXCLUDED}
    digests: dict[str, str] = {}
    for image_id, info in enumerate(show(infos, len(infos)), 1):
        problems += _name_problems(info.file_name)
        if info.error is not None:
            kind = "truncated_image" if "truncated" in info.error else "unreadable_image"
            problems.append(Problem(info.file_name, kind, info.error, EXCLUDED))
            continue
        if info.file_name in excluded:
            continue
        if not source.has(info.file_name):
            if not missing_is_healthy:
                problems.append(Problem(info.file_name, "unlabelled", "no annotation; not taken as healthy", EXCLUDED))
                continue
            problems.append(Problem(info.file_name, "assumed_healthy", "no annotation; taken as healthy, as asked"))
            annotation = RawAnnotation("", size=info.size)
        else:
            try:
                annotation, digests[info.file_name] = source.read(info.file_name)
            except AnnotationError as error:
                problems.append(Problem(info.file_name, error.kind, str(error), EXCLUDED))
                continue
        record, record_problems = build_record(image_id, info, annotation, rules)
        problems += record_problems
        if record is not None:
            records.append(record)
    return CheckedDataset(Dataset(tuple(records), rules.class_names), tuple(problems), digests)


def write_annotations(dataset: Dataset, path: str | Path, fmt: str) -> None:
    """Write a data set: a folder of LabelImg XML or of YOLO text with classes.txt, or one COCO file.

    Files of a folder follow the images' relative paths. VOC holds whole pixels, clamped up to 1 as by LabelImg; YOLO
    six decimals; COCO everything. Raises ValueError for an unknown format, or two images that need one file.
    """
    if fmt not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {fmt!r}")
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
