"""The class names of YOLO labels: classes.txt, darknet's obj.names and _darknet.labels, Ultralytics' data.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fracture_det.data.annotation_formats.data_yaml import YAML_SUFFIXES, read_data_yaml
from fracture_det.data.annotation_formats.fields import read_bytes
from fracture_det.data.annotation_formats.text import Notes, decode_text
from fracture_det.data.annotations import AnnotationError

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
# Text files beside labels that are no labels: names, lists of images and what exporters say of themselves.
_NO_LABELS = ("classes.txt", "labels.txt", "labelmap.txt", "train.txt", "val.txt", "valid.txt", "test.txt")


@dataclass(frozen=True)
class ClassNames:
    """Class names in order of their ids. files: where they were read, each with what was read with tolerance."""

    names: tuple[str, ...]
    files: Mapping[Path, Notes]


def find_class_names(place: str | Path) -> ClassNames | None:
    """Return the class names that lie at `place`; None where there are none.

    place: a file of names, or a folder; of a folder, its own files count before those of its parent. Raises
    AnnotationError for a file that cannot be read, and for two files that say different names.
    """
    place = Path(place)
    if place.is_file():
        read = _read(place)
        return None if read is None else ClassNames(read[0], {place: read[1]})
    for folder in (place, place.resolve().parent):
        found = {path: read for path in _candidates(folder) if (read := _read(path)) is not None}
        if len({names for names, _ in found.values()}) > 1:
            listed = "; ".join(f"{path.name}: {', '.join(names)}" for path, (names, _) in found.items())
            raise AnnotationError(str(folder), "class names", f"which holds is not known ({listed}); give --yolo-names")
        if found:
            return ClassNames(next(iter(found.values()))[0], {path: notes for path, (_, notes) in found.items()})
    return None


def label_folder(place: str | Path) -> Path:
    """Return the folder of the labels whose names lie at `place`: itself, or that of a file of names.

    The `path` of a data.yaml counts where it leads to a folder. Raises AnnotationError for a broken data.yaml.
    """
    place = Path(place)
    if not place.is_file():
        return place
    root = read_data_yaml(place).root if place.name.lower().endswith(YAML_SUFFIXES) else ""
    return place.parent / root if root and (place.parent / root).is_dir() else place.parent


def is_name_file(path: str | Path) -> bool:
    """Return whether a file of this name holds class names, by its name alone."""
    name = Path(path).name.lower()
    return name in NAME_FILES or name.endswith(".names") or name.endswith(YAML_SUFFIXES)


def is_no_label(name: str) -> bool:
    """Return whether a .txt file of this name, among YOLO labels, is a list or a note of the exporter."""
    name = Path(name).name.lower()
    return name in _NO_LABELS or name.startswith("readme")


def _candidates(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if is_name_file(path) and path.is_file())
    except OSError:
        return []


def _read(path: Path) -> tuple[tuple[str, ...], Notes] | None:
    """Return the names of a file, and notes on its writing; None for a YAML that is not a data.yaml."""
    if path.name.lower().endswith(YAML_SUFFIXES):
        try:
            content = read_data_yaml(path)
            return content.names, content.notes
        except AnnotationError:
            if path.stem.lower() in ("data", "dataset"):
                raise
            return None
    try:
        text, notes = decode_text(read_bytes(path))
    except ValueError as error:
        raise AnnotationError(str(path), "text", error) from error
    lines = [line.strip() for line in text.strip("\r\n\t \0").splitlines()]
    # A line without a name keeps its place: the ids count lines.
    names = tuple(line or str(index) for index, line in enumerate(lines))
    return (names, notes) if names else None
