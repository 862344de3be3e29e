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
# Rows of a Parquet file that are in memory together.
ROW_GROUP = 50_000
Row = tuple[Any, ...]


def write_csv(predictions: Path, path: Path, *, score: float) -> int:
    """Write boxes from `score` on; return how many images have one.

    An image has one row per box, or one row that says `none` (predicted, no box from `score` on), `error`, or
    `unsuitable`: not analysed, since it does not look like a radiograph of a limb. The column `unsuitable` says why,
    also in the other rows of an image that was analysed all the same. `notes` are words with spaces between them.
    """
    header, images = stream_predictions(predictions)
    with_boxes = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image in images:
            rows = list(_rows(image, header["class_names"], score))
            with_boxes += rows[0][1] == "box"
            for *place, label, confidence, x0, y0, x1, y1, error, unsuitable, notes in rows:
                numbers = [f"{value:.1f}" if value is not None else None for value in (x0, y0, x1, y1)]
                sure = None if confidence is None else f"{confidence:.4f}"
                writer.writerow([*place, label, sure, *numbers, error, unsuitable, notes])
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
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)), metadata=facts)
    rows = (row for image in images for row in _rows(image, header["class_names"], score))
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            columns = [pa.array(column, kind) for column, kind in zip(zip(*group, strict=True), kinds, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


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
