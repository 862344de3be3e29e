"""Read annotations item by item: a file per image, or exports that hold many."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from typing import Protocol, cast

from fracture_det.data.annotation_formats.image_names import ImageNames
from fracture_det.data.annotation_formats.registry import ExportFormat, PerImageFormat
from fracture_det.data.annotations import AnnotationError, RawAnnotation
from fracture_det.data.inventory import FileInventory
from fracture_det.data.matching import Item, plain
from fracture_det.data.records import EXCLUDED, Problem


class Reader(Protocol):
    """Reads the annotations of one format."""

    items: list[Item]
    problems: list[Problem]
    n_unread_files: int

    def content(self, item: Item) -> RawAnnotation:
        """Return what the annotation says; raises AnnotationError."""
        ...

    def read(self, item: Item) -> tuple[RawAnnotation, str]:
        """Return the annotation and the SHA-256 of its file; raises AnnotationError."""
        ...


class FileReader:
    """One annotation file per image."""

    def __init__(self, inventory: FileInventory, kind: PerImageFormat, names: Sequence[str]) -> None:
        self._root, self._kind, self._names = inventory.annotation_root, kind, names
        self.problems: list[Problem] = []
        self.n_unread_files = 0
        self.items = [
            Item(file, posixpath.splitext(file)[0], posixpath.dirname(file)) for file in inventory.annotation_files
        ]

    def content(self, item: Item) -> RawAnnotation:
        return self.read(item)[0]

    def read(self, item: Item) -> tuple[RawAnnotation, str]:
        try:
            data = (self._root / item.name).read_bytes()
        except OSError as error:
            raise AnnotationError(item.name, "file", error.strerror or error) from error
        words = (item.name, self._names, data) if self._kind.needs_class_names else (item.name, data)
        return cast(RawAnnotation, self._kind.parse(*words)), hashlib.sha256(data).hexdigest()


class ExportReader:
    """One file, or a folder of files, each of which annotates many images."""

    def __init__(self, inventory: FileInventory, kind: ExportFormat, class_names: Sequence[str]) -> None:
        options = {"class_names": class_names} if kind.takes_class_names else {}
        self._names = ImageNames([*inventory.images, *inventory.unread])
        self.items: list[Item] = []
        self.problems: list[Problem] = []
        self._annotations: dict[str, tuple[RawAnnotation, str]] = {}
        errors = []
        for file in inventory.annotation_files:
            path = inventory.annotation_root / file
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                parsed = kind.parse(path, **options)
            except (AnnotationError, OSError) as error:
                if isinstance(error, OSError):
                    error = AnnotationError(str(path), "annotations", error.strerror or error)
                errors.append((file, error))
                continue
            self.problems += parsed.problems
            for annotation in parsed.annotations:
                self._add(annotation, file, digest)
        if errors and len(errors) == len(inventory.annotation_files):
            raise errors[0][1]
        self.problems += [Problem(file, error.kind, str(error), EXCLUDED) for file, error in errors]
        self.n_unread_files = len(errors)

    def _add(self, annotation: RawAnnotation, file: str, digest: str) -> None:
        path = plain(self._names.path_of(annotation) or str(annotation.image_name or ""))
        name = f"{file}: {path}"
        while name in self._annotations:  # listed twice: both are named, neither is lost
            name += " (again)"
        self._annotations[name] = annotation, digest
        self.items.append(Item(name, path, posixpath.dirname(file), entry=True, file=file))

    def content(self, item: Item) -> RawAnnotation:
        return self._annotations[item.name][0]

    def read(self, item: Item) -> tuple[RawAnnotation, str]:
        return self._annotations[item.name]
