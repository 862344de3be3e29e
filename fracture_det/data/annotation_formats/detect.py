"""Which format a file, or the files of a folder, are in: from what they hold, not from their suffix alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from fracture_det.data.annotation_formats.class_names import find_class_names, is_name_file, is_no_label
from fracture_det.data.annotation_formats.createml import is_createml_item
from fracture_det.data.annotation_formats.fields import read_bytes
from fracture_det.data.annotation_formats.label_studio import is_min_record, is_task
from fracture_det.data.annotation_formats.tensorflow_csv import COLUMNS, read_csv
from fracture_det.data.annotation_formats.text import decode_text, read_json, read_xml
from fracture_det.data.annotation_formats.via import CSV_COLUMNS, is_via_item
from fracture_det.data.annotations import AnnotationError
from fracture_det.structures.image_files import list_folder

_TOOLS = {
    "voc": "LabelImg (Pascal VOC)",
    "yolo": "YOLO",
    "coco": "COCO",
    "labelme": "labelme",
    "label-studio": "Label Studio",
    "cvat": "CVAT",
    "via": "VIA",
    "createml": "CreateML",
    "tensorflow-csv": "TensorFlow's CSV",
}
_LOOKED_AT = 100
# A class, by its id or its name, and four numbers or more; parse_yolo says what is wrong with them.
_YOLO_LINE = re.compile(r"\s*[^\s,;]+([\s,;]+[-+]?\d*[.,]?\d+([eE][-+]?\d+)?){4,}[\s,;]*")


def detect_format(path: str | Path, *, leave_out: Collection[Path] = ()) -> str:
    """Return the format, a key of ANNOTATION_FORMATS, of a file or of the files of a folder and below.

    Of each suffix the first hundred files are read; damaged XML alone counts as LabelImg's. Raises AnnotationError
    that says what was seen, where nothing or more than one format fits. leave_out: real paths of files to ignore.
    """
    path = Path(path)
    if path.is_file():
        # A data.yaml or obj.names stands for the labels that it names the classes of.
        fmt = "yolo" if is_name_file(path) and find_class_names(path) else _format_of_file(path)
        if fmt is None:
            raise AnnotationError(str(path), "format", f"not known; read are {', '.join(_TOOLS.values())}")
        return fmt
    try:
        files = [path / name for name in list_folder(path).others]
        files = [file for file in files if not leave_out or file.resolve() not in leave_out]
    except OSError as error:
        raise AnnotationError(str(path), "annotations", error.strerror or error) from error
    seen: Counter[tuple[str, str]] = Counter()
    looked_at: Counter[str] = Counter()
    has_empty_label = False
    for file in files:
        suffix = file.suffix.lower()
        looked_at[suffix] += 1
        if looked_at[suffix] > _LOOKED_AT or file.name.startswith("."):
            continue
        fmt = _format_in_folder(file)
        if fmt is not None:
            seen[fmt, suffix] += 1
        has_empty_label |= suffix == ".txt" and not is_no_label(file.name) and file.stat().st_size == 0
    formats = {fmt for fmt, _ in seen}
    if not formats and (has_empty_label or looked_at[".xml"]):
        # XML of which no file can be read was LabelImg's before it was damaged; its reader says how.
        return "voc" if looked_at[".xml"] else "yolo"
    if len(formats) == 1:
        return formats.pop()
    if not formats:
        detail = f"no annotation of a known format among {_counted(looked_at)}; give --annotations the right folder"
    else:
        counted = (f"{n:,} {suffix} of {_TOOLS[fmt]}" for (fmt, suffix), n in sorted(seen.items()))
        detail = f"{' and '.join(counted)}: give --format, or a folder with one of them"
    raise AnnotationError(str(path), "format", detail)


def _counted(suffixes: Counter[str]) -> str:
    total = sum(suffixes.values())
    kinds = ", ".join(f"{n:,} {suffix or 'without suffix'}" for suffix, n in suffixes.most_common(5))
    return f"{total:,} files ({kinds})" if total else "0 files"


def _format_in_folder(path: Path) -> str | None:
    """Return the format of one file of a folder; None for what is no annotation, or is damaged."""
    try:
        return _format_of_file(path)
    except AnnotationError:
        return None


def _format_of_file(path: Path) -> str | None:
    """Return the format of one file; None for what is no annotation. Raises AnnotationError for damaged ones."""
    suffix, file = path.suffix.lower(), str(path)
    if suffix == ".xml":
        return {"annotation": "voc", "annotations": "cvat"}.get(read_xml(file, read_bytes(path))[0].tag)
    if suffix == ".json":
        return _format_of_json(read_json(file, read_bytes(path))[0])
    if suffix == ".csv":
        columns = set(read_csv(file, read_bytes(path))[0])
        return _first((set(CSV_COLUMNS) <= columns, "via"), (set(COLUMNS) <= columns, "tensorflow-csv"))
    if suffix == ".txt" and not is_no_label(path.name):
        try:
            lines = decode_text(read_bytes(path))[0].splitlines()
        except ValueError as error:
            raise AnnotationError(file, "text", error) from error
        return _first((any(map(_YOLO_LINE.fullmatch, lines)), "yolo"))
    return None


def _format_of_json(content: object) -> str | None:
    if isinstance(content, list):
        return _first(
            (any(map(is_task, content)) or any(map(is_min_record, content)), "label-studio"),
            (any(map(is_createml_item, content)), "createml"),
        )
    if not isinstance(content, dict):
        return None
    return _first(
        # Its reader says which of the three lists is missing.
        (sum(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")) > 1, "coco"),
        (isinstance(content.get("shapes"), list), "labelme"),
        ("_via_img_metadata" in content or any(map(is_via_item, content.values())), "via"),
        (is_task(content), "label-studio"),
    )


def _first(*cases: tuple[bool, str]) -> str | None:
    return next((fmt for fits, fmt in cases if fits), None)
