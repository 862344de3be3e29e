"""Match annotations to images and read them, in any of the three formats."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from fracture_det.data.annotation_formats.coco import parse_coco
from fracture_det.data.annotation_formats.voc import parse_voc
from fracture_det.data.annotation_formats.yolo import CLASSES_FILE, parse_yolo, read_class_names
from fracture_det.data.annotations import AnnotationError, RawAnnotation
from fracture_det.data.records import EXCLUDED, Problem

FORMATS = ("voc", "yolo", "coco")


class AnnotationSource(Protocol):
    """The annotations of one data set; `problems` were found while matching files to images."""

    problems: list[Problem]

    def has(self, file_name: str) -> bool:
        """Return whether the image has an annotation; if not, it is unlabelled, unless `problems` exclude it."""
        ...

    def read(self, file_name: str) -> tuple[RawAnnotation, str]:
        """Return the annotation of an image and the SHA-256 of its file; raises AnnotationError."""
        ...


def open_annotations(
    path: str | Path, fmt: str, file_names: Sequence[str], *, yolo_names: Sequence[str] | None = None
) -> AnnotationSource:
    """Open the annotations at `path` (a folder, or a JSON file for coco) for the images `file_names`.

    yolo_names: class names in order of their ids; default: classes.txt. Raises AnnotationError when nothing can be
    read at all, ValueError for an unknown format.
    """
    if fmt == "coco":
        return CocoAnnotations(Path(path), file_names)
    if fmt == "voc":
        return FolderAnnotations(Path(path), ".xml", file_names)
    if fmt == "yolo":
        names = tuple(yolo_names) if yolo_names else read_class_names(path)
        if names is None:
            raise AnnotationError(str(path), CLASSES_FILE, "missing; give the names with --yolo-names")
        return FolderAnnotations(Path(path), ".txt", file_names, names)
    raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {fmt!r}")


class FolderAnnotations:
    """One annotation file per image: same relative path, or else same stem anywhere in the folder.

    Where several images share a stem, LabelImg's <folder>, <filename> and <path> decide; where these are ambiguous, the
    images are excluded and reported.
    """

    def __init__(
        self, root: Path, suffix: str, file_names: Sequence[str], yolo_names: Sequence[str] | None = None
    ) -> None:
        if not root.is_dir():
            raise AnnotationError(str(root), "annotations", "not a folder")
        self.problems: list[Problem] = []
        self._root, self._yolo_names = root, yolo_names
        files = sorted(p.relative_to(root).as_posix() for p in root.rglob(f"*{suffix}") if p.name != CLASSES_FILE)
        self._file_of = self._match(file_names, files)

    def has(self, file_name: str) -> bool:
        return file_name in self._file_of

    def read(self, file_name: str) -> tuple[RawAnnotation, str]:
        return self._parse(self._file_of[file_name])

    def _parse(self, file: str) -> tuple[RawAnnotation, str]:
        path = self._root / file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise AnnotationError(file, "file", error.strerror or error) from error
        if self._yolo_names is not None:
            return parse_yolo(file, self._yolo_names, data), hashlib.sha256(data).hexdigest()
        return parse_voc(file, data), hashlib.sha256(data).hexdigest()

    def _match(self, images: Sequence[str], files: Sequence[str]) -> dict[str, str]:
        images_of_stem: dict[str, list[str]] = defaultdict(list)
        images_of_path: dict[str, list[str]] = defaultdict(list)
        for image in images:
            images_of_stem[PurePosixPath(image).stem].append(image)
            images_of_path[_without_suffix(image)].append(image)
        claims: dict[str, list[str]] = defaultdict(list)
        for file in files:
            candidates = images_of_path.get(_without_suffix(file)) or images_of_stem.get(PurePosixPath(file).stem, [])
            if not candidates:
                self.problems.append(Problem(file, "annotation_without_image", "no image of this name"))
            elif len(candidates) == 1:
                claims[candidates[0]].append(file)
            else:
                self._match_by_content(file, candidates, claims)
        self._report_stems(images_of_stem)
        return self._one_file_each(claims)

    def _match_by_content(self, file: str, candidates: list[str], claims: dict[str, list[str]]) -> None:
        try:
            annotation = self._parse(file)[0]
        except AnnotationError:
            named = []
        else:
            named = [image for image in candidates if _names_image(annotation, image)]
        if len(named) == 1:
            claims[named[0]].append(file)
        else:
            detail = f"fits {', '.join(candidates)}, and does not say which"
            self.problems.append(Problem(file, "annotation_ambiguous", detail, EXCLUDED))

    def _report_stems(self, images_of_stem: dict[str, list[str]]) -> None:
        for images in images_of_stem.values():
            for image in images if len(images) > 1 else ():
                others = ", ".join(other for other in images if other != image)
                self.problems.append(Problem(image, "same_stem", f"as {others}"))

    def _one_file_each(self, claims: dict[str, list[str]]) -> dict[str, str]:
        matched = {}
        for image, files in claims.items():
            exact = [file for file in files if _without_suffix(file) == _without_suffix(image)]
            if len(files) == 1 or len(exact) == 1:
                matched[image] = (exact or files)[0]
                for file in files:
                    if file != matched[image]:
                        detail = f"{image} has {matched[image]}; this one is not used"
                        self.problems.append(Problem(file, "second_annotation", detail))
            else:
                detail = f"annotated by {', '.join(files)}; which one holds is not known"
                self.problems.append(Problem(image, "second_annotation", detail, EXCLUDED))
        return matched


class CocoAnnotations:
    """One JSON file for all images, matched by file_name: relative path, or else the bare name if it is unique."""

    def __init__(self, path: Path, file_names: Sequence[str]) -> None:
        self.problems: list[Problem] = []
        try:
            self._digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise AnnotationError(str(path), "annotations", error.strerror or error) from error
        export = parse_coco(path)
        self.problems += export.problems
        annotations = {str(a.image_path): a for a in export.annotations}
        by_name: dict[str, list[str]] = defaultdict(list)
        for image in file_names:
            by_name[PurePosixPath(image).name].append(image)
        present = set(file_names)
        self._of: dict[str, RawAnnotation] = {}
        for name, annotation in annotations.items():
            fits = [name] if name in present else by_name.get(PurePosixPath(name).name, [])
            if len(fits) == 1 and fits[0] not in self._of:
                self._of[fits[0]] = annotation
            elif not fits:
                self.problems.append(Problem(name, "annotation_without_image", "no image of this name"))
            else:
                detail = f"fits {', '.join(fits)}, or another entry of {path.name} does"
                self.problems.append(Problem(name, "annotation_ambiguous", detail, EXCLUDED))

    def has(self, file_name: str) -> bool:
        return file_name in self._of

    def read(self, file_name: str) -> tuple[RawAnnotation, str]:
        return self._of[file_name], self._digest


def _without_suffix(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def _names_image(annotation: RawAnnotation, image: str) -> bool:
    path = PurePosixPath(image)
    written = (annotation.image_path or "").replace("\\", "/")
    if written.endswith("/" + image):
        return True
    if annotation.image_name is None or annotation.image_name != path.name:
        return False
    return annotation.folder is None or len(path.parts) == 1 or annotation.folder == path.parts[-2]
