"""Every format that is read: from its name to its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fracture_det.data.annotation_formats.coco import parse_coco
from fracture_det.data.annotation_formats.createml import parse_createml
from fracture_det.data.annotation_formats.cvat import parse_cvat
from fracture_det.data.annotation_formats.label_studio import parse_label_studio
from fracture_det.data.annotation_formats.labelme import parse_labelme
from fracture_det.data.annotation_formats.tensorflow_csv import parse_tensorflow_csv
from fracture_det.data.annotation_formats.via import parse_via
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
    """A format with many images per file.

    suffix: of its files in a folder. parse: path -> ParsedExport; raises AnnotationError. takes_class_names: parse has
    the keyword class_names, the names of classes that are known, which tell the class from other attributes.
    """

    suffix: str
    parse: Callable[..., ParsedExport]
    takes_class_names: bool = False


ANNOTATION_FORMATS: dict[str, PerImageFormat | ExportFormat] = {
    "voc": PerImageFormat(".xml", parse_voc),
    "yolo": PerImageFormat(".txt", parse_yolo, needs_class_names=True),
    "coco": ExportFormat(".json", parse_coco),
    "labelme": PerImageFormat(".json", parse_labelme),
    "label-studio": ExportFormat(".json", parse_label_studio),
    "cvat": ExportFormat(".xml", parse_cvat),
    "via": ExportFormat(".json", parse_via, takes_class_names=True),
    "createml": ExportFormat(".json", parse_createml),
    "tensorflow-csv": ExportFormat(".csv", parse_tensorflow_csv),
}
