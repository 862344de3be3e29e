"""Predictions as tables: CSV for people, Parquet for programs, both made from predictions.jsonl."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fracture_det.data.predictions import ImagePrediction, stream_predictions
from fracture_det.structures.image_files import SkippedFile

COLUMNS = ("file_name", "status", "height", "width", "number", "label", "score",
           "x0_px", "y0_px", "x1_px", "y1_px", "error", "unsuitable", "notes")  # fmt: skip
SKIPPED_COLUMNS = ("file", "reason")
# The further column of a detector that tells types of fracture, and the probability from which it names one.
TYPES_COLUMN, SHOWN_PROBABILITY = "types", 0.05
# Rows of a Parquet file that are in memory together.
ROW_GROUP = 50_000
Row = tuple[Any, ...]


def write_csv(predictions: Path, path: Path, *, score: float) -> int:
    """Write boxes from `score` on; return how many images have one.

    An image has one row per box, or one row that says `none` (predicted, no box from `score` on), `error`, or
    `unsuitable`: not analysed, since it does not look like a radiograph of a limb. The column `unsuitable` says why,
    also in the other rows of an image that was analysed all the same. `notes` are words with spaces between them.
    Where the detector tells types, a last column has those of the image, in the rows of its boxes; see `types_text`.
    """
    header, images = stream_predictions(predictions)
    with_boxes = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        type_names = header.get("type_names", ())
        writer.writerow(columns_of(type_names))
        for image in images:
            rows = list(_rows(image, header["class_names"], score))
            types = [types_text(types_of(image, type_names, score))] if type_names else []
            with_boxes += rows[0][1] == "box"
            for *place, label, confidence, x0, y0, x1, y1, error, unsuitable, notes in rows:
                numbers = [f"{value:.1f}" if value is not None else None for value in (x0, y0, x1, y1)]
                sure = None if confidence is None else f"{confidence:.4f}"
                writer.writerow([*place, label, sure, *numbers, error, unsuitable, notes, *types])
    return with_boxes


def write_skipped(skipped: Sequence[SkippedFile], path: Path) -> None:
    """Write which files of the input were not read, and why; without any, remove the file of an earlier run."""
    if not skipped:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SKIPPED_COLUMNS)
        writer.writerows((skip.name, skip.reason) for skip in skipped)


def write_parquet(predictions: Path, path: Path, *, score: float = 0.0) -> None:
    """Write the rows of `write_csv` with full precision: text, int32 and float32 columns, missing values as null.

    The file's metadata hold the header of predictions.jsonl (detector, SHA-256 ...) as text.
    Raises ValueError when pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ValueError("--parquet needs pyarrow, which is not installed; make setup brings it") from error
    whole, real = pa.int32(), pa.float32()
    kinds = [pa.string(), pa.string(), whole, whole, whole, pa.string(), *[real] * 5, *[pa.string()] * 3]
    header, images = stream_predictions(predictions)
    facts = {name: str(value) for name, value in header.items()}
    type_names = header.get("type_names", ())
    kinds += [pa.string()] if type_names else []
    schema = pa.schema(list(zip(columns_of(type_names), kinds, strict=True)), metadata=facts)
    rows = (
        (*row, types_text(types_of(image, type_names, score))) if type_names else row
        for image in images
        for row in _rows(image, header["class_names"], score)
    )
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            columns = [pa.array(column, kind) for column, kind in zip(zip(*group, strict=True), kinds, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def columns_of(type_names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the tables of a detector that tells these types."""
    return (*COLUMNS, TYPES_COLUMN) if type_names else COLUMNS


def types_of(image: ImagePrediction, type_names: Sequence[str], score: float) -> list[tuple[str, float]]:
    """Return the types of an image with their probabilities (0..1), the most probable first.

    They are of all its boxes, as `fracture-det eval` evaluates them, and there are none without a box from `score` on.
    """
    types = None if image.detections is None else image.detections.image_types()
    if types is None or image.detections is None or not len(image.detections.above(score)):
        return []
    return sorted(zip(type_names, types.tolist(), strict=True), key=lambda pair: -pair[1])


def types_text(types: Sequence[tuple[str, float]]) -> str | None:
    """Return the types from SHOWN_PROBABILITY on as "spiral 0.62; oblique 0.21"; None without any."""
    return "; ".join(f"{name} {value:.2f}" for name, value in types if value >= SHOWN_PROBABILITY) or None


def _rows(image: ImagePrediction, class_names: Sequence[str], score: float) -> Iterator[Row]:
    """Yield the values of COLUMNS for each row of an image."""
    nothing, notes = (None,) * 7, " ".join(image.notes) or None
    if image.detections is None or image.size is None:
        status = "error" if image.unsuitable is None else "unsuitable"
        yield (image.file_name, status, None, None, *nothing, image.error, image.unsuitable, notes)
        return
    shown = image.detections.above(score)
    if not len(shown):
        yield (image.file_name, "none", *image.size, *nothing, None, image.unsuitable, notes)
    for number, (box, confidence, index) in enumerate(zip(shown.boxes, shown.scores, shown.classes, strict=True), 1):
        place = (image.file_name, "box", *image.size, number)
        yield (
            *place,
            class_names[int(index)],
            float(confidence),
            *(float(value) for value in box),
            None,
            image.unsuitable,
            notes,
        )
