"""Predicting many files with any detector: in batches, and one bad file does not stop the rest."""

from __future__ import annotations

import glob
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fracture_det.detections import Detections
from fracture_det.images import Pixels, UnreadableImage, read_radiograph
from fracture_det.inference.detector import Detector
from fracture_det.predictions import ImagePrediction, PredictionWriter

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

NamedFile = tuple[str, Path]


class InputError(ValueError):
    """The input names no image; the message says what was looked for."""


@dataclass(frozen=True)
class FoundImages:
    """The images under an input.

    files: (name, path) in order of name; the name is relative to the input, with forward slashes.
    skipped: files that are no images by their suffix.
    """

    files: tuple[NamedFile, ...]
    skipped: tuple[Path, ...] = ()


def find_images(source: str | Path, *, leave_out: Path | None = None) -> FoundImages:
    """Return the images that a file, a folder (with its subfolders) or a glob pattern names.

    A single file is taken whatever its suffix. `leave_out` is a folder that is passed over: the output of an
    earlier run may lie inside the input. Raises InputError when nothing is found.
    """
    path = Path(source)
    if path.is_file():
        return FoundImages(((path.name, path),))
    if path.is_dir():
        root, candidates = path, _walk(path)
    else:
        root = _fixed_part(path)
        candidates = [match for match in root.glob(str(path.relative_to(root))) if match.is_file()]
    if leave_out is not None:
        candidates = [path for path in candidates if not path.resolve().is_relative_to(leave_out.resolve())]
    images = [path for path in candidates if path.suffix.lower() in IMAGE_SUFFIXES]
    skipped = [path for path in candidates if path.suffix.lower() not in IMAGE_SUFFIXES]
    if not images:
        raise InputError(
            f"{source}: no image found ({len(skipped)} other files); looked for {', '.join(IMAGE_SUFFIXES)}"
        )
    files = sorted((path.relative_to(root).as_posix(), path) for path in images)
    return FoundImages(tuple(files), tuple(sorted(skipped)))


def _walk(root: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(root) for name in names]


def _fixed_part(pattern: Path) -> Path:
    """Return the folder before the first part of a pattern that has a wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


@dataclass(frozen=True, eq=False)
class PredictedFile:
    """One file after prediction.

    pixels: (H, W, 3) uint8 RGB upright, or None where the file could not be read.
    seconds: this image's share of its batch's time in the detector; reading is not in it.
    """

    prediction: ImagePrediction
    pixels: Pixels | None
    seconds: float


def predict_files(detector: Detector, files: Iterable[NamedFile], *, batch_size: int = 1) -> Iterator[PredictedFile]:
    """Yield one PredictedFile per (name, path), in order; never more than one batch is in memory.

    A file that cannot be read, or on which the detector fails, yields a prediction with an `error`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    waiting = iter(files)
    while chunk := list(islice(waiting, batch_size)):
        read = [_read(path) for _, path in chunk]
        found = iter(_predict(detector, [pixels for pixels in read if not isinstance(pixels, str)]))
        for (name, _), pixels in zip(chunk, read, strict=True):
            if isinstance(pixels, str):
                yield PredictedFile(ImagePrediction(name, error=pixels), None, 0.0)
                continue
            result, seconds = next(found)
            if isinstance(result, str):
                yield PredictedFile(ImagePrediction(name, error=result), pixels, seconds)
            else:
                yield PredictedFile(ImagePrediction(name, pixels.shape[:2], result), pixels, seconds)


def _read(path: Path) -> Pixels | str:
    try:
        return read_radiograph(path).pixels
    except UnreadableImage as error:
        return str(error).removeprefix(f"{path}: ")


def _predict(detector: Detector, images: Sequence[Pixels]) -> list[tuple[Detections | str, float]]:
    """Return detections, or the error as text, and seconds for each image."""
    if not images:
        return []
    start = time.perf_counter()
    try:
        found = detector.predict(images)
    except Exception as error:  # whatever a model raises, the other images are still worth predicting
        if len(images) > 1:
            return [result for image in images for result in _predict(detector, [image])]
        return [(f"the detector failed: {type(error).__name__}: {error}", time.perf_counter() - start)]
    if len(found) != len(images):
        raise ValueError(f"{detector.name}: expected {len(images)} results, got {len(found)}")
    seconds = (time.perf_counter() - start) / len(images)
    return [(one, seconds) for one in found]


@dataclass(frozen=True)
class BatchRun:
    """What a run over many files did.

    predicted, failed: number of files. seconds: time in the detector alone, without reading and drawing.
    machine: name and processor.
    """

    predicted: int
    failed: int
    seconds: float
    batch_size: int
    machine: str

    @property
    def images_per_second(self) -> float | None:
        """Images that went through the detector per second; None when none did."""
        return self.predicted / self.seconds if self.predicted and self.seconds > 0 else None

    def as_timing(self) -> dict[str, Any]:
        """Return it for the `timing` of a report."""
        speed = self.images_per_second
        return {
            "images": self.predicted,
            "seconds_in_detector": round(self.seconds, 3),
            "images_per_second": None if speed is None else round(speed, 3),
            "batch_size": self.batch_size,
            "machine": self.machine,
        }


def predict_to_file(
    detector: Detector,
    files: Sequence[NamedFile],
    path: Path,
    *,
    batch_size: int = 1,
    each: Callable[[PredictedFile], None] | None = None,
    progress: bool = True,
) -> BatchRun:
    """Predict files and write predictions.jsonl to `path` line by line, with a progress bar on stderr.

    each: called with every PredictedFile in order, for overlays and tables.
    """
    failed, seconds = 0, 0.0
    score = operating_score_of(detector)
    with (
        PredictionWriter(path, detector.name, tuple(detector.class_names), score) as writer,
        tqdm(total=len(files), unit="image", disable=not progress) as bar,
    ):
        for one in predict_files(detector, files, batch_size=batch_size):
            writer.write(one.prediction)
            failed += one.prediction.error is not None
            seconds += one.seconds
            if one.prediction.error is not None:
                tqdm.write(f"{one.prediction.file_name}: {one.prediction.error}", file=sys.stderr)
            if each is not None:
                each(one)
            bar.update()
    return BatchRun(len(files) - failed, failed, seconds, batch_size, machine_name())


def operating_score_of(detector: Detector) -> float | None:
    """Return the score at which the detector itself calls a box a fracture, or None where it does not say."""
    score = getattr(detector, "operating_score", None)
    return None if score is None else float(score)


def machine_name() -> str:
    """Return this machine's name, processor and number of cores."""
    return f"{platform.node()}, {_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() says only "x86_64" on Linux
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
