"""Predicting many files with any detector: in batches, and one bad file does not stop the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fracture_det.data.prediction_writer import PredictionWriter
from fracture_det.data.predictions import ImagePrediction
from fracture_det.inference.base import Detector, DetectorInfo
from fracture_det.inference.stage_timer import StageTimer, stage, timing_of
from fracture_det.structures.detections import Detections
from fracture_det.structures.image_files import NamedFile
from fracture_det.structures.processors import available_cpus
from fracture_det.structures.radiograph import Pixels, Radiograph, UnreadableImage, read_radiograph
from fracture_det.structures.timing import Timing
from fracture_det.suitability.assess import HEADLINE, Suitability

Seconds = Mapping[str, float]
Alter = Callable[[str, Pixels], Pixels]
# Whether a picture is a radiograph of a limb.
Assess = Callable[[Radiograph], Suitability]


@dataclass(frozen=True)
class Screening:
    """What is done about pictures that are no radiographs of a limb, as `assess` finds.

    analysed: they are predicted all the same, and marked; else they yield an error, and the detector never sees them.
    """

    assess: Assess
    analysed: bool = False


@dataclass(frozen=True, eq=False)
class _Read:
    """Pixels, or the error as text; the seconds of reading; unsuitable, notes: see ImagePrediction."""

    pixels: Pixels | str
    seconds: Seconds
    unsuitable: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PredictedFile:
    """One file after prediction.

    pixels: (H, W, 3) uint8 RGB upright, or None where the file could not be read.
    seconds: stage -> seconds of this image: read, and its share of its batch's preprocess, model and postprocess.
    """

    prediction: ImagePrediction
    pixels: Pixels | None
    seconds: Seconds


def predict_files(
    detector: Detector,
    files: Iterable[NamedFile],
    *,
    batch_size: int = 1,
    alter: Alter | None = None,
    read_ahead: bool = False,
    screening: Screening | None = None,
) -> Iterator[PredictedFile]:
    """Yield one PredictedFile per (name, path), in order; never more than one batch is in memory.

    read_ahead: threads read the next batch, which is then in memory too, while the detector works on one; the seconds
    of reading then pass beside the others.
    A file that cannot be read, or on which the detector fails, yields a prediction with an `error`.
    alter: (name, pixels) -> the pixels that are predicted in their place.
    screening: what is done about pictures that are no radiographs of a limb; without it nobody asks.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    read_batches = _read_ahead if read_ahead else _read_in_turn
    reader = partial(_read, alter=alter, screening=screening)
    for chunk, read in read_batches(iter(files), batch_size, reader):
        results = iter(_predict(detector, [file.pixels for file in read if not isinstance(file.pixels, str)]))
        for (name, _), file in zip(chunk, read, strict=True):
            marks: dict[str, Any] = {"unsuitable": file.unsuitable, "notes": file.notes}
            if isinstance(file.pixels, str):
                prediction = ImagePrediction(name, error=file.pixels, **marks)
                yield PredictedFile(prediction, None, file.seconds)
                continue
            result, detecting = next(results)
            if isinstance(result, str):
                prediction = ImagePrediction(name, error=result, notes=file.notes)
            else:
                prediction = ImagePrediction(name, file.pixels.shape[:2], result, **marks)
            yield PredictedFile(prediction, file.pixels, {**file.seconds, **detecting})


def _read_in_turn(
    files: Iterator[NamedFile], batch_size: int, reader: Callable[[str, Path], _Read]
) -> Iterator[tuple[list[NamedFile], list[_Read]]]:
    while chunk := list(islice(files, batch_size)):
        yield chunk, [reader(name, path) for name, path in chunk]


def _read_ahead(
    files: Iterator[NamedFile], batch_size: int, reader: Callable[[str, Path], _Read]
) -> Iterator[tuple[list[NamedFile], list[_Read]]]:
    """Yield batches of files with what was read of them; the next one is read meanwhile."""
    with ThreadPoolExecutor(min(batch_size, available_cpus()), "read") as pool:

        def begin() -> tuple[list[NamedFile], list[Future[_Read]]]:
            chunk = list(islice(files, batch_size))
            return chunk, [pool.submit(reader, name, path) for name, path in chunk]

        chunk, reading = begin()
        while chunk:
            read = [future.result() for future in reading]
            done, (chunk, reading) = chunk, begin()
            yield done, read


def _read(name: str, path: Path, *, alter: Alter | None, screening: Screening | None) -> _Read:
    clock = StageTimer()
    try:
        with clock, stage("read"):
            radiograph = read_radiograph(path)
    except UnreadableImage as error:
        return _Read(error.reason, clock.seconds)
    unsuitable: str | None = None
    notes: tuple[str, ...] = ()
    if screening is not None:
        said = screening.assess(radiograph)
        unsuitable, notes = said.reason, said.notes
        if unsuitable is not None and not screening.analysed:
            return _Read(f"not analysed: {HEADLINE}. {said.sentence}", clock.seconds, unsuitable, notes)
    pixels = radiograph.pixels
    return _Read(pixels if alter is None else alter(name, pixels), clock.seconds, unsuitable, notes)


def _predict(detector: Detector, images: Sequence[Pixels]) -> list[tuple[Detections | str, Seconds]]:
    """Return detections, or the error as text, and the seconds of the detector's stages for each image."""
    if not images:
        return []
    clock = StageTimer()
    try:
        with clock, stage("model"):  # what a detector does not mark as another stage is its model
            predictions = detector.predict(images)
    except Exception as error:  # whatever a model raises, the other images are still worth predicting
        if len(images) > 1:
            return [result for image in images for result in _predict(detector, [image])]
        return [(f"the detector failed: {type(error).__name__}: {error}", clock.seconds)]
    if len(predictions) != len(images):
        raise ValueError(f"{detector.info.name}: expected {len(images)} results, got {len(predictions)}")
    share = {name: seconds / len(images) for name, seconds in clock.seconds.items()}
    return [(detections, share) for detections in predictions]


@dataclass(frozen=True)
class BatchRun:
    """What a run over many files did.

    predicted, failed: number of files. seconds: for each predicted image, stage -> seconds.
    device: what the model ran on, where the detector says so.
    """

    predicted: int
    failed: int
    batch_size: int
    seconds: Sequence[Seconds] = field(repr=False)
    device: str | None = None

    def as_timing(self) -> Timing:
        """Return median and 95th percentile of each stage for a report; files that failed are not in them."""
        return timing_of(self.seconds, batch_size=self.batch_size, device=self.device)


def predict_to_file(
    detector: Detector,
    files: Sequence[NamedFile],
    path: Path,
    *,
    batch_size: int = 1,
    on_file: Callable[[PredictedFile], None] | None = None,
    progress: bool = True,
    screening: Screening | None = None,
) -> BatchRun:
    """Predict files and write predictions.jsonl to `path` line by line, with a progress bar on stderr.

    on_file: called with every PredictedFile in order, for overlays and tables; its stage "draw", if it marks one, is
    measured too. screening: see `predict_files`.
    """
    seconds: list[Seconds] = []
    with writer_for(detector.info, path) as writer, tqdm(total=len(files), unit="image", disable=not progress) as bar:
        for file in predict_files(detector, files, batch_size=batch_size, screening=screening):
            writer.write(file.prediction)
            drawing = StageTimer()
            if on_file is not None:
                with drawing:
                    on_file(file)
            if file.prediction.error is None:
                seconds.append({**file.seconds, **drawing.seconds})
            else:
                tqdm.write(f"{file.prediction.file_name}: {file.prediction.error}", file=sys.stderr)
            bar.update()
    return BatchRun(len(seconds), len(files) - len(seconds), batch_size, seconds, detector.info.device)


def writer_for(
    info: DetectorInfo, path: Path, *, archive: Mapping[str, Any] | None = None, append: bool = False
) -> PredictionWriter:
    """Return the writer of a predictions file with a detector's own header; archive, append: see PredictionWriter."""
    header = (info.name, info.class_names, info.operating_score, info.provenance)
    return PredictionWriter(path, *header, archive=archive or {}, append=append, type_names=info.type_names)
