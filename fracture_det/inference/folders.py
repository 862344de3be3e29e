"""What a run over many files leaves for people: overlays, and a table of boxes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fracture_det.evaluation.operating import PAPER_SCORE
from fracture_det.figures import draw_overlay
from fracture_det.inference.batch import NamedFile, PredictedFile, operating_score_of, predict_to_file
from fracture_det.inference.clock import stage
from fracture_det.inference.detector import Detector

JPEG_QUALITY = 92
COLUMNS = ("file_name", "status", "height", "width", "number", "label", "score",
           "x0_px", "y0_px", "x1_px", "y1_px", "error")  # fmt: skip


@dataclass(frozen=True)
class FolderRun:
    """What was written: number of files predicted, failed, and with a box from `score` on."""

    predicted: int
    failed: int
    with_boxes: int
    score: float


@dataclass
class FolderWriter:
    """Writes overlays and rows as predictions come in.

    A file has one row per box, or one row that says `none` (predicted, no box from `score` on) or `error`.
    """

    folder: Path
    class_names: tuple[str, ...]
    score: float
    overlays: bool
    rows: Any  # a csv writer
    with_boxes: int = field(default=0, init=False)

    def __call__(self, one: PredictedFile) -> None:
        """Write one file's overlay and rows."""
        image = one.prediction
        if image.detections is None or image.size is None:
            self.rows.writerow([image.file_name, "error", *[""] * 9, image.error])
            return
        shown = image.detections.above(self.score)
        self.with_boxes += len(shown) > 0
        height, width = image.size
        if not len(shown):
            self.rows.writerow([image.file_name, "none", height, width, *[""] * 8])
        for number, (box, score, index) in enumerate(zip(shown.boxes, shown.scores, shown.classes, strict=True), 1):
            cells = [f"{score:.4f}", *(f"{value:.1f}" for value in box), ""]
            self.rows.writerow([image.file_name, "box", height, width, number, self.class_names[int(index)], *cells])
        if self.overlays and one.pixels is not None:
            path = overlay_path(self.folder, image.file_name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with stage("draw"):
                overlay = draw_overlay(one.pixels, shown, self.class_names)
            overlay.save(path, quality=JPEG_QUALITY, subsampling=0)  # colour at half size blurs thin lines


def overlay_path(folder: Path, file_name: str) -> Path:
    """Return where the overlay of an image lies; names that differ, in folder, stem or suffix, never meet."""
    return folder / "overlays" / f"{file_name}.overlay.jpg"


def predict_to_folder(
    detector: Detector,
    files: Sequence[NamedFile],
    folder: Path,
    *,
    score: float | None = None,
    batch_size: int = 1,
    overlays: bool = True,
    progress: bool = True,
) -> FolderRun:
    """Predict files and write predictions.jsonl (all boxes), predictions.csv and overlays (boxes from `score` on).

    score: 0..1; when None, the detector's own, else the paper's .5. Raises ValueError when it is outside 0..1.
    """
    stated = operating_score_of(detector)
    score = score if score is not None else PAPER_SCORE if stated is None else stated
    if not 0 <= score <= 1:
        raise ValueError(f"score: expected 0..1, got {score}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(COLUMNS)
        writer = FolderWriter(folder, tuple(detector.class_names), score, overlays, rows)
        run = predict_to_file(
            detector, files, folder / "predictions.jsonl", batch_size=batch_size, each=writer, progress=progress
        )
    return FolderRun(run.predicted, run.failed, writer.with_boxes, score)
