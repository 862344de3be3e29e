"""Every format that is read: from its name to its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fracture_det.data.annotation_formats.coco import parse_coco
from fracture_det.data.annotation_formats.voc import parse_voc
from fracture_det.data.annotation_formats.yolo import parse_yolo
from fracture_det.data.annotations import ParsedExport


@dataclass(frozen=True)
class PerImageFormat:
    """A format with one annotation file per image, named after it.

    suffix: of the annotation files. parse: (path, bytes) -> RawAnnotation, for YOLO (path, class names, bytes); raises
    AnnotationError.
    """

    suffix: str
    parse: Callable[..., object]
    needs_class_names: bool = False


@dataclass(frozen=True)
class ExportFormat:
    """A format with many images per file. parse: path -> ParsedExport; raises AnnotationError."""

    suffix: str
    parse: Callable[[Path], ParsedExport]


ANNOTATION_FORMATS: dict[str, PerImageFormat | ExportFormat] = {
    "voc": PerImageFormat(".xml", parse_voc),
    "yolo": PerImageFormat(".txt", parse_yolo, needs_class_names=True),
    "coco": ExportFormat(".json", parse_coco),
}
