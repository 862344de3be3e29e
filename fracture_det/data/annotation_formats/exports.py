"""An export of one file, or of one per folder (Roboflow) or per image (LabelImg's CreateML)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fracture_det.data.annotation_formats.image_names import one_per_image
from fracture_det.data.annotation_formats.registry import ANNOTATION_FORMATS, ExportFormat
from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation
from fracture_det.data.records import Problem
from fracture_det.structures.image_files import list_folder


def read_export(path: str | Path, fmt: str, *, class_names: Sequence[str] = ()) -> ParsedExport:
    """Read an export in format `fmt`: a file, or every such file of a folder and below as one export.

    Images of a file in a subfolder are looked for in a folder of that name: `train/_annotations.coco.json` means
    train/a.jpg by a.jpg. A file that cannot be read, or is of another format, is an annotation with a fault, of an
    image with its name: LabelImg writes one file per image. class_names: see parse_via. Raises AnnotationError for a
    file that cannot be read and a folder without a file of the format, ValueError for another kind of format.
    """
    path = Path(path)
    export_format = ANNOTATION_FORMATS.get(fmt)
    if not isinstance(export_format, ExportFormat):
        raise ValueError(f"format: expected one with many images per file, got {fmt!r}")
    options = {"class_names": class_names} if export_format.takes_class_names else {}
    if not path.is_dir():
        return export_format.parse(path, **options)
    suffixes = (export_format.suffix, *export_format.other_suffixes)
    annotations: list[RawAnnotation] = []
    names: list[str] = []
    problems: list[Problem] = []
    n_read = 0
    for file in list_folder(path).others:
        if not file.lower().endswith(suffixes):
            continue
        try:
            export = export_format.parse(path / file, **options)
        except AnnotationError as error:
            stem = PurePosixPath(file).with_suffix("").as_posix()
            annotations.append(RawAnnotation(str(path / file), image_path=stem, fault=error))
            continue
        n_read += 1
        annotations += [_moved(annotation, PurePosixPath(file).parent) for annotation in export.annotations]
        names += export.class_names
        problems += export.problems
    if not n_read:
        raise AnnotationError(str(path), fmt, f"no {' or '.join(suffixes)} of this format in this folder or below")
    return ParsedExport(one_per_image(annotations), tuple(dict.fromkeys(names)), tuple(problems))


def _moved(annotation: RawAnnotation, folder: PurePosixPath) -> RawAnnotation:
    written = annotation.image_path or ""
    if folder.as_posix() == "." or PurePosixPath(written).is_absolute() or written[1:2] == ":":
        return annotation
    return replace(annotation, image_path=(folder / written).as_posix(), other_names=(*annotation.other_names, written))
