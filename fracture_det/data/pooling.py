"""Several prepared data sets as one, so that thresholds are chosen on all of them and figures are told by source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fracture_det.data.annotations import AnnotationError
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.records import Dataset
from fracture_det.data.splits import SPLITS

SOURCE = "source"
# It becomes a folder and a value of a stratum.
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class PoolingError(ValueError):
    """Data sets cannot be pooled; the message names the source and what is wrong with it."""


@dataclass(frozen=True)
class Source:
    """One data set: its name, the folder with its train.json, val.json or test.json, and its image folder."""

    name: str
    data: Path
    images: Path

    def __post_init__(self) -> None:
        if not SOURCE_NAME.fullmatch(self.name):
            raise PoolingError(f"source {self.name!r}: expected letters, digits and ._- as its name")
        for folder in (self.data, self.images):
            if not folder.is_dir():
                raise PoolingError(f"source {self.name}: {folder}: {'no' if folder.exists() else 'no such'} folder")


def pool(sources: Sequence[Source], out: Path) -> dict[str, dict[str, int]]:
    """Write each split that the sources have to `out`, and links to their images; return images by split and source.

    File names and groups get the name of their source before them, images the attribute `source`, by which reports form
    strata. `out` gets train.json, val.json and test.json, and `images/NAME`, a link to the source's image folder.
    Raises PoolingError for names that repeat, other class names, a source without any split, and an `out` that holds
    something else; AnnotationError for a file that is not a data set; OSError where links cannot be made.
    """
    names = [source.name for source in sources]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise PoolingError(f"source {repeated[0]}: named twice")
    parts = {source.name: _splits(source) for source in sources}
    classes = {name: dataset.class_names for name, splits in parts.items() for dataset in splits.values()}
    first = classes[names[0]]
    for name, class_names in classes.items():
        if class_names != first:
            raise PoolingError(f"source {name}: its classes are {list(class_names)}, those of {names[0]} {list(first)}")
    for source in sources:
        _link(out / "images" / source.name, source.images.resolve())
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        datasets = {name: splits[split] for name, splits in parts.items() if split in splits}
        if datasets:
            write_coco(_together(datasets), out / f"{split}.json", description=f"{split} of {', '.join(datasets)}")
            counts[split] = {name: len(dataset) for name, dataset in datasets.items()}
        else:
            (out / f"{split}.json").unlink(missing_ok=True)
    return counts


def _splits(source: Source) -> dict[str, Dataset]:
    files = {split: source.data / f"{split}.json" for split in SPLITS}
    splits = {split: read_coco(file) for split, file in files.items() if file.is_file()}
    if not splits:
        raise PoolingError(f"source {source.name}: {source.data} has none of {', '.join(f'{s}.json' for s in SPLITS)}")
    for split, dataset in splits.items():
        taken = [record.file_name for record in dataset if SOURCE in record.attributes]
        if taken:
            raise AnnotationError(str(files[split]), "attributes", f"{taken[0]} has the attribute {SOURCE!r} already")
    return splits


def _together(datasets: dict[str, Dataset]) -> Dataset:
    records = [
        replace(
            record,
            file_name=f"{name}/{record.file_name}",
            group_id=f"{name}/{record.group_id}",
            attributes={**record.attributes, SOURCE: name},
        )
        for name, dataset in datasets.items()
        for record in dataset
    ]
    numbered = (replace(record, image_id=number) for number, record in enumerate(records, start=1))
    return Dataset(tuple(numbered), next(iter(datasets.values())).class_names)


def _link(link: Path, folder: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise PoolingError(f"{link}: not a link; give another --out")
    link.symlink_to(folder, target_is_directory=True)
