"""Test images that a training saw: the same bytes, near copies, or other images of the same group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fracture_det.data.duplicates import near_duplicates
from fracture_det.data.image_info import ImageInfo, read_image_infos
from fracture_det.data.pooling import SOURCE
from fracture_det.data.records import Dataset, ImageRecord

SAME_FILE, NEAR_COPY, SAME_GROUP = "same file", "near copy", "same group"
# Between the name of a data set and that of a file; neither can hold it.
_SEPARATOR = "\0"


class LeakError(ValueError):
    """It cannot be told whether test images were trained on; the message names the data set and the file."""


@dataclass(frozen=True)
class ImageSet:
    """A data set with its image folder. name: for messages, and unique among those compared."""

    name: str
    dataset: Dataset
    images: Path


@dataclass(frozen=True)
class Overlap:
    """A test image, the training image that gives it away, and how: SAME_FILE, NEAR_COPY or SAME_GROUP."""

    image: str
    training: str
    training_image: str
    how: str


def find_leaks(
    tests: Sequence[ImageSet], trainings: Sequence[ImageSet], *, workers: int = 1
) -> dict[str, list[Overlap]]:
    """Return by name of the test its images that are in the training data, each with its strongest evidence.

    Files are compared by SHA-256 and as near copies (`near_duplicates`), groups by their name. Raises LeakError for an
    image that is not in its folder: what it shows cannot be compared.
    """
    read = {one.name: _read(one, workers) for one in (*tests, *trainings)}
    trained = _Trained.of(trainings, read)
    copies = _copies([info for infos in read.values() for info in infos.values()], {one.name for one in trainings})
    found: dict[str, list[Overlap]] = {}
    for test in tests:
        overlaps = (_overlap(record, read[test.name][record.file_name], trained, copies) for record in test.dataset)
        found[test.name] = [overlap for overlap in overlaps if overlap is not None]
    return found


Infos = Mapping[str, ImageInfo]


def _read(images: ImageSet, workers: int) -> dict[str, ImageInfo]:
    """Return what each file holds, by the file's own name; an ImageInfo carries the data set's name before it."""
    names = [record.file_name for record in images.dataset]
    infos = read_image_infos(images.images, names, workers=workers)
    for info in infos:
        if not info.sha256:
            raise LeakError(f"{images.name}: {images.images / info.file_name}: {info.error}")
    return {info.file_name: _named(info, images.name) for info in infos}


def _named(info: ImageInfo, name: str) -> ImageInfo:
    return ImageInfo(
        f"{name}{_SEPARATOR}{info.file_name}", info.size, info.orientation, info.sha256, info.thumbnail, info.error
    )


def _copies(infos: Sequence[ImageInfo], trainings: set[str]) -> dict[str, tuple[str, str]]:
    """Return by named test file the training set and the file in it that shows the same picture."""
    found: dict[str, tuple[str, str]] = {}
    for first, second, _ in near_duplicates(infos):
        for one, other in ((first, second), (second, first)):
            name, _, file = other.partition(_SEPARATOR)
            if name in trainings and one.partition(_SEPARATOR)[0] not in trainings:
                found.setdefault(one, (name, file))
    return found


@dataclass(frozen=True)
class _Trained:
    """All training images: by SHA-256, and by the name of their group without its source."""

    by_content: Mapping[str, tuple[str, str]]
    by_group: Mapping[str, Sequence[tuple[str, ImageRecord]]]

    @classmethod
    def of(cls, trainings: Sequence[ImageSet], read: Mapping[str, Infos]) -> _Trained:
        by_content: dict[str, tuple[str, str]] = {}
        by_group: dict[str, list[tuple[str, ImageRecord]]] = {}
        for training in trainings:
            for record in training.dataset:
                by_content.setdefault(read[training.name][record.file_name].sha256, (training.name, record.file_name))
                by_group.setdefault(_source_and_group(record)[1], []).append((training.name, record))
        return cls(by_content, by_group)


def _overlap(
    record: ImageRecord, info: ImageInfo, trained: _Trained, copies: Mapping[str, tuple[str, str]]
) -> Overlap | None:
    if info.sha256 in trained.by_content:
        return Overlap(record.file_name, *trained.by_content[info.sha256], SAME_FILE)
    if info.file_name in copies:
        return Overlap(record.file_name, *copies[info.file_name], NEAR_COPY)
    for training, other in trained.by_group.get(_source_and_group(record)[1], ()):
        if same_group(record, other):
            return Overlap(record.file_name, training, other.file_name, SAME_GROUP)
    return None


def same_group(first: ImageRecord, second: ImageRecord) -> bool:
    """Return whether two images are of one group.

    In a pooled data set a group has the name of its source before it. Groups of two known sources are different; where
    one source is not known, equal names are taken for one group: a leak must not be overlooked.
    """
    (source, group), (other_source, other_group) = _source_and_group(first), _source_and_group(second)
    return group == other_group and (source is None or other_source is None or source == other_source)


def _source_and_group(record: ImageRecord) -> tuple[str | None, str]:
    source = record.attributes.get(SOURCE)
    prefix = f"{source}/"
    if source is None or not record.group_id.startswith(prefix):
        return None, record.group_id
    return source, record.group_id.removeprefix(prefix)
