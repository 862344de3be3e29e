"""Registration of COCO data sets with Detectron2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

SPEC_SEPARATOR = "@"


class CatalogError(ValueError):
    """A data set cannot be registered; the message names the file and what is wrong with it."""


def register_datasets(names: Sequence[str], class_names: Sequence[str]) -> None:
    """Register every data set of `names` that Detectron2 does not know yet.

    A name is that of a registered data set, or `ANNOTATIONS.json@IMAGE_FOLDER`, which is registered under that name.
    Healthy images (without annotations) are kept.

    Raises CatalogError for a missing file or image folder, for missing images, and for categories that are not
    `class_names`.
    """
    for name in names:
        if name in DatasetCatalog:
            continue
        json_file, separator, image_folder = name.rpartition(SPEC_SEPARATOR)
        if not separator:
            raise CatalogError(f"data set {name!r}: neither registered nor of the form ANNOTATIONS.json@IMAGE_FOLDER")
        _check_coco(Path(json_file), Path(image_folder), class_names)
        DatasetCatalog.register(
            name, lambda name=name, file=json_file, images=image_folder: load_coco_json(file, images, name)
        )
        MetadataCatalog.get(name).set(json_file=json_file, image_root=image_folder, evaluator_type="coco")


def _check_coco(json_file: Path, image_folder: Path, class_names: Sequence[str]) -> None:
    if not json_file.is_file():
        raise CatalogError(f"{json_file}: no such file; make it with tools/prepare_dataset.py")
    if not image_folder.is_dir():
        raise CatalogError(f"{image_folder}: no such image folder (for {json_file})")
    content = json.loads(json_file.read_text(encoding="utf-8"))
    categories = [category["name"] for category in sorted(content.get("categories", []), key=lambda c: c["id"])]
    if categories != list(class_names):
        raise CatalogError(f"{json_file}: categories {categories}, but DATASETS.CLASS_NAMES is {list(class_names)}")
    missing = [image["file_name"] for image in content["images"] if not (image_folder / image["file_name"]).is_file()]
    if missing:
        raise CatalogError(
            f"{json_file}: {len(missing)} of {len(content['images'])} images are not in {image_folder}, "
            f"the first is {missing[0]}"
        )
