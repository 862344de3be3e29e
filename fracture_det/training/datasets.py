"""Registration of COCO data sets with Detectron2, and the checks that they pass before training starts."""

from __future__ import annotations

import atexit
import functools
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import BoxMode

from fracture_det.data.annotations import AnnotationError
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.image_info import read_upright_size
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.data.splits import read_groups
from fracture_det.data.tables import MetadataError
from fracture_det.structures.radiograph import UnreadableImage
from fracture_det.training.overlap import find_overlap, first_of

SPEC_SEPARATOR = "@"
# Wraps the stream of images, given their number and a title: a progress bar.
Progress = Callable[[Iterable[ImageRecord], int, str], Iterable[ImageRecord]]
_logger = logging.getLogger("detectron2")


class CatalogError(ValueError):
    """Data sets cannot be trained on; the message has one line per problem, with the file and what is wrong."""


def register_training_data(cfg: CfgNode, *, progress: Progress | None = None) -> None:
    """Register the data sets of `cfg`, and check them one by one and together.

    Data sets that Detectron2 already knows are checked only for what they are used for. Raises CatalogError with every
    problem: those of `register_datasets`, data sets without images, training without a fractured image, validation
    without a box, DATALOADER.FRACTURED_SHARE without healthy images, another number of DATALOADER.SOURCE_WEIGHTS, and
    images, copies or groups that both train and validate.
    """
    problems: list[str] = []
    usable = {}
    for name in dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]):
        found = _register(name, cfg.DATASETS.CLASS_NAMES, progress)
        problems += found
        usable[name] = not found
    if all(usable[name] for name in cfg.DATASETS.TRAIN):
        problems += _check_training_sets(cfg)
    problems += [line for name in cfg.DATASETS.TEST if usable[name] for line in _check_validation_set(name)]
    if cfg.MODEL.TYPE_HEAD.ONLY and cfg.DATASETS.TEST and all(usable[name] for name in cfg.DATASETS.TEST):
        unknown = _check_types(cfg.MODEL.TYPE_HEAD.NAMES, _items(cfg.DATASETS.TEST), ", ".join(cfg.DATASETS.TEST))
        problems += [] if unknown is None else [unknown]
    if all(usable.values()):
        problems += find_overlap(*(_items(names) for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)))
    _raise_if_any(problems)


def register_datasets(names: Sequence[str], class_names: Sequence[str]) -> None:
    """Register every data set of `names` that Detectron2 does not know yet.

    A name is that of a registered data set, or `ANNOTATIONS.json@IMAGE_FOLDER`, which is registered under that name.
    Healthy images (without annotations) are kept, regions marked `iscrowd` too: see `without_crowds`. Categories are
    matched with `class_names` by name; those that no box has are ignored.

    Raises CatalogError for a missing or wrong file, a missing image folder, images that are missing, unreadable or of
    another size than the file says, and boxes whose category is not one of `class_names`.
    """
    _raise_if_any([line for name in dict.fromkeys(names) for line in _register(name, class_names, None)])


def source_names(names: Sequence[str]) -> list[str]:
    """Return a short name for each data set: the folder of its file, with as much of its path as tells them apart."""
    folders = [Path(_file(name)).absolute().parent.parts for name in names]
    longest = max(map(len, folders), default=0)
    for length in range(1, longest + 1):
        short = ["_".join(parts[-length:]).strip("/") for parts in folders]
        if len(set(short)) == len(set(names)):
            return short
    return [_file(name).strip("/").replace("/", "_") for name in names]


def training_images(cfg: CfgNode) -> list[dict[str, Any]]:
    """Return the images to train on, each with `source`, its index in DATASETS.TRAIN."""
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    return [
        item | {"source": source}
        for source, name in enumerate(cfg.DATASETS.TRAIN)
        for item in without_crowds(get_detection_dataset_dicts(name, filter_empty=filter_empty))
    ]


def without_crowds(dataset_dicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the images without a region marked `iscrowd`; log how many are left out.

    Such a region holds an unknown number of fractures without boxes, so that its image would teach them as healthy.
    """
    kept = [item for item in dataset_dicts if not _has_crowd(item)]
    if len(kept) < len(dataset_dicts):
        _logger.warning(
            "%d of %d images are left out: they have regions marked iscrowd, which are neither fracture nor background",
            len(dataset_dicts) - len(kept),
            len(dataset_dicts),
        )
    return kept


def _raise_if_any(problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise CatalogError(problems[0])
    if problems:
        raise CatalogError("\n  ".join([f"{len(problems)} problems:", *problems]))


def _register(name: str, class_names: Sequence[str], progress: Progress | None) -> list[str]:
    """Register one data set unless it is known; return its problems, with which it is not registered."""
    if name in DatasetCatalog:
        return []
    json_file, separator, image_folder = name.rpartition(SPEC_SEPARATOR)
    if not separator:
        return [f"data set {name!r}: neither registered nor of the form ANNOTATIONS.json@IMAGE_FOLDER"]
    try:
        dataset = _with_groups(_with_classes(_read(json_file), class_names, json_file), Path(json_file))
    except (AnnotationError, CatalogError) as error:
        return [str(error)]
    if not Path(image_folder).is_dir():
        return [f"{image_folder}: no such image folder (for {json_file})"]
    problems = _check_images(dataset, Path(image_folder), json_file, progress)
    if not problems:
        DatasetCatalog.register(name, lambda: _to_dicts(dataset, image_folder))
        MetadataCatalog.get(name).set(
            json_file=_evaluation_file(dataset),
            image_root=image_folder,
            evaluator_type="coco",
            thing_classes=list(class_names),
            thing_dataset_id_to_contiguous_id={index + 1: index for index in range(len(class_names))},
        )
    return problems


def _read(json_file: str) -> Dataset:
    if not Path(json_file).is_file():
        raise CatalogError(f"{json_file}: no such file; make it with tools/prepare_dataset.py")
    try:
        return read_coco(json_file)
    except OSError as error:
        raise CatalogError(f"{json_file}: cannot be read: {error.strerror or error}") from error


def _with_classes(dataset: Dataset, class_names: Sequence[str], json_file: str) -> Dataset:
    """Return the data set with its classes as indices into `class_names`, matched by name."""
    used = {index for record in dataset for index in record.classes.tolist()}
    unknown = [dataset.class_names[index] for index in sorted(used) if dataset.class_names[index] not in class_names]
    if unknown:
        mapping = " ".join(f"{name}={class_names[0]}" for name in unknown)
        raise CatalogError(
            f"{json_file}: its boxes have the categories {unknown}, but DATASETS.CLASS_NAMES is {list(class_names)}; "
            f"if they mean the same, prepare the data with --class-map {mapping} (for this file, with --format coco), "
            f"else name them in DATASETS.CLASS_NAMES, and their number in MODEL.ROI_HEADS.NUM_CLASSES"
        )
    unused = [name for index, name in enumerate(dataset.class_names) if index not in used and name not in class_names]
    if unused:
        _logger.info("%s: no box has the categories %s, which are ignored", json_file, unused)
    index_of = [class_names.index(name) if name in class_names else -1 for name in dataset.class_names]
    records = [replace(r, classes=np.array([index_of[i] for i in r.classes.tolist()], np.int64)) for r in dataset]
    return Dataset(tuple(records), tuple(class_names))


def _with_groups(dataset: Dataset, json_file: Path) -> Dataset:
    """Return the data set with the groups of the split.json beside it, where its own file says none."""
    if (
        any(record.group_id != record.file_name for record in dataset)
        or not (json_file.parent / "split.json").is_file()
    ):
        return dataset
    try:
        groups = read_groups(json_file.parent / "split.json")
    except MetadataError as error:
        raise CatalogError(
            f"{error}: it would say which images belong together; move it away if it is another's"
        ) from None
    records = (replace(record, group_id=groups.get(record.file_name, record.group_id)) for record in dataset)
    return Dataset(tuple(records), dataset.class_names, dataset.notes)


def _check_images(dataset: Dataset, image_folder: Path, json_file: str, progress: Progress | None) -> list[str]:
    """Return what is wrong with the image files, from their headers and ends: one line per kind."""
    missing, unreadable, other_size = [], [], []
    show = progress or (lambda stream, _total, _title: stream)
    for record in show(dataset, len(dataset), f"checking the images of {Path(json_file).name}"):
        path = image_folder / record.file_name
        if not path.is_file():
            missing.append(record.file_name)
            continue
        try:
            height, width = read_upright_size(path)
        except UnreadableImage as error:
            unreadable.append(f"{record.file_name} ({str(error).removeprefix(f'{path}: ')})")
            continue
        if (height, width) != record.size:
            other_size.append(f"{record.file_name} ({width} x {height}, said to be {record.width} x {record.height})")
    kinds = (
        (missing, f"are not in {image_folder}"),
        (unreadable, "cannot be read"),
        (other_size, "have another size than it says, so that their boxes may be wrong"),
    )
    return [
        f"{json_file}: {len(names)} of {len(dataset)} images {what}: {first_of(names)}"
        for names, what in kinds
        if names
    ]


def _to_dicts(dataset: Dataset, image_folder: str) -> list[dict[str, Any]]:
    """Return the data set in Detectron2's standard form, in the order of the image ids."""
    return [
        {
            "file_name": str(Path(image_folder) / record.file_name),
            "image_id": record.image_id,
            "height": record.height,
            "width": record.width,
            "group": record.group_id,
            "image_root": str(Path(image_folder).resolve()),
            "type": record.image_type,
            "annotations": [
                *(
                    _annotation(box, index) | {"type": kind}
                    for box, index, kind in zip(
                        record.boxes.tolist(), record.classes.tolist(), record.types, strict=True
                    )
                ),
                *(_annotation(box, 0) | {"iscrowd": 1} for box in record.crowd_boxes.tolist()),
            ],
        }
        for record in sorted(dataset, key=lambda record: record.image_id)
    ]


def _annotation(box: Sequence[float], class_index: int) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    bbox = [x0, y0, x1 - x0, y1 - y0]
    return {"bbox": bbox, "bbox_mode": BoxMode.XYWH_ABS, "category_id": class_index, "iscrowd": 0}


def _evaluation_file(dataset: Dataset) -> str:
    """Write the data set for COCO's evaluation, which needs ids and areas that a file may lack; return the path."""
    path = Path(_evaluation_folder()) / f"{len(list(Path(_evaluation_folder()).iterdir()))}.json"
    write_coco(dataset, path)
    return str(path)


@functools.cache
def _evaluation_folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="fracture_det_")
    atexit.register(folder.cleanup)
    return folder.name


def _has_crowd(item: dict[str, Any]) -> bool:
    return any(annotation.get("iscrowd", 0) for annotation in item.get("annotations", ()))


def _check_training_sets(cfg: CfgNode) -> list[str]:
    sets = {name: DatasetCatalog.get(name) for name in cfg.DATASETS.TRAIN}
    problems = [f"{_file(name)}: no image to train on" for name, items in sets.items() if not items]
    if problems:
        return problems
    weights = cfg.DATALOADER.SOURCE_WEIGHTS
    if weights and len(weights) != len(cfg.DATASETS.TRAIN):
        return [f"DATALOADER.SOURCE_WEIGHTS has {len(weights)} weights for {len(cfg.DATASETS.TRAIN)} sources"]
    items = [item for items in sets.values() for item in items if not _has_crowd(item)]
    n_crowd = sum(map(len, sets.values())) - len(items)
    n_fractured = sum(bool(item.get("annotations")) for item in items)
    files = ", ".join(map(_file, sets))
    if unknown := _check_types(cfg.MODEL.TYPE_HEAD.NAMES, items, files):
        return [unknown]
    if not n_fractured:
        left_out = f" ({n_crowd} more with regions marked iscrowd are left out)" if n_crowd else ""
        return [f"{files}: no fractured image to train on: none of {len(items)} images has a box{left_out}"]
    if n_fractured < len(items):
        return []
    if cfg.DATALOADER.FRACTURED_SHARE:
        return [
            f"{files}: DATALOADER.FRACTURED_SHARE is {cfg.DATALOADER.FRACTURED_SHARE}, but each of {len(items)} images "
            f"is fractured; set it to 0, or add healthy images"
        ]
    _logger.warning(
        "%s: each of %d images is fractured; without healthy ones a detector learns to find something in every "
        "radiograph",
        files,
        len(items),
    )
    return []


def _check_types(names: Sequence[str], items: Sequence[dict[str, Any]], files: str) -> str | None:
    """Return what is wrong with types of fracture that nothing in the training data has; log what it has besides."""
    if not names:
        return None
    kinds = Counter(annotation.get("type") for item in items for annotation in item.get("annotations", ()))
    kinds += Counter(item.get("type") for item in items)
    del kinds[None]
    if not set(kinds) & set(names):
        return (
            f"{files}: no box and no radiograph has one of the types of MODEL.TYPE_HEAD.NAMES {list(names)}; prepare "
            f"the data with types (docs/types.md), or set it to ()"
        )
    absent = [name for name in names if name not in kinds]
    if absent:
        _logger.warning("%s: no box and no radiograph is of type %s, which cannot be learnt", files, ", ".join(absent))
    others = {kind: n for kind, n in kinds.items() if kind not in names}
    if others:
        _logger.warning("%s: types that MODEL.TYPE_HEAD.NAMES does not name count as unknown: %s", files, others)
    return None


def _check_validation_set(name: str) -> list[str]:
    items = DatasetCatalog.get(name)
    without = "DATASETS.TEST '()' trains without validation"
    if not items:
        return [f"{_file(name)}: no image to validate on; {without}"]
    boxes = sum(not annotation.get("iscrowd", 0) for item in items for annotation in item.get("annotations", ()))
    if not boxes:
        return [f"{_file(name)}: none of {len(items)} images has a box, so that AP is undefined; {without}"]
    return []


def _items(names: Sequence[str]) -> list[dict[str, Any]]:
    return [item for name in names for item in DatasetCatalog.get(name)]


def _file(name: str) -> str:
    return name.rpartition(SPEC_SEPARATOR)[0] or name
