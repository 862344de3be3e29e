"""Write predictions.jsonl line by line, and resume what an interrupted run left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from fracture_det.data.predictions import (
    FORMAT,
    VERSION,
    ImagePrediction,
    Predictions,
    PredictionsError,
    stream_predictions,
)

# Digits behind the point of the probability of a type: their rounding keeps a row's sum within 1e-3 of 1.
TYPE_DIGITS = 5
# Bytes that are searched together for the end of a line.
BLOCK = 1 << 16


@dataclass
class PredictionWriter:
    """Writes a predictions file line by line, so that an interrupted run keeps what it has; a context manager.

    archive: identifies the input files, for `resume` and for joining shards; readers ignore it.
    append: continue a file that `resume` has checked, instead of replacing it.
    type_names: of the types that the detections have, if any.
    """

    path: Path
    detector: str
    class_names: tuple[str, ...]
    operating_score: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    archive: Mapping[str, Any] = field(default_factory=dict)
    append: bool = False
    type_names: tuple[str, ...] = ()
    _file: TextIO | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> PredictionWriter:
        self._file = self.path.open("a" if self.append else "w", encoding="utf-8", newline="\n")
        if not self.append:
            self._write(self.header)
        return self

    @property
    def header(self) -> dict[str, Any]:
        """The first line of the file."""
        header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "class_names": list(self.class_names)}
        header["detector"] = self.detector
        if self.operating_score is not None:
            header["operating_score"] = self.operating_score
        if self.type_names:
            header["type_names"] = list(self.type_names)
        if self.about:
            header["about"] = dict(self.about)
        if self.archive:
            header["archive"] = dict(self.archive)
        return header

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, image: ImagePrediction) -> None:
        """Append one image."""
        self.write_line(image_line(image, self.class_names))

    def write_line(self, line: str) -> None:
        """Append a line made by `image_line`."""
        if self._file is None:
            raise ValueError(f"{self.path}: the PredictionWriter is not open")
        self._file.write(line + "\n")
        self._file.flush()

    def _write(self, line: Mapping[str, Any]) -> None:
        self.write_line(_as_json(line))


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write a predictions file; reading it back gives equal boxes and scores (exact in float32), rounded types."""
    header = (predictions.detector, predictions.class_names, predictions.operating_score, predictions.about)
    with PredictionWriter(Path(path), *header, type_names=predictions.type_names) as writer:
        for image in predictions.images:
            writer.write(image)


def _as_json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def image_line(image: ImagePrediction, class_names: tuple[str, ...]) -> str:
    """Return the line of one image, without the line break."""
    return _as_json(_image_values(image, class_names))


def _image_values(image: ImagePrediction, class_names: tuple[str, ...]) -> dict[str, Any]:
    mark: dict[str, Any] = {} if image.unsuitable is None else {"unsuitable": image.unsuitable}
    if image.notes:
        mark["notes"] = list(image.notes)
    if image.detections is None or image.size is None:
        return {"file_name": image.file_name, "error": image.error, **mark}
    detections = image.detections
    rows: list[dict[str, Any]] = [
        {
            "box_xyxy_px": [_float32(value) for value in box],
            "score": _float32(score),
            "label": class_names[int(index)],
        }
        for box, score, index in zip(detections.boxes, detections.scores, detections.classes, strict=True)
    ]
    if detections.types is not None:
        for row, types in zip(rows, detections.types, strict=True):
            row["types"] = [round(float(value), TYPE_DIGITS) for value in types]
    height, width = image.size
    return {"file_name": image.file_name, "height": height, "width": width, "detections": rows, **mark}


def _float32(value: np.float32) -> float:
    return float(f"{value:.9g}")  # nine significant digits identify every float32


@dataclass(frozen=True)
class ResumePoint:
    """What a killed run left: the names of the images that are done, and whether its last line was torn."""

    done: frozenset[str] = frozenset()
    torn: bool = False


def resume(writer: PredictionWriter) -> ResumePoint:
    """Return what the file of `writer` already holds, so that a killed run can be resumed.

    A last line without a line break was torn by the kill: it is cut off, but only from a file of this run.
    Raises PredictionsError, with the file as it was, when another detector, calibration or input wrote it.
    """
    path = writer.path
    if _end_of_lines(path) == 0:
        _check_torn_header(path, _as_json(writer.header))
        return ResumePoint(torn=path.stat().st_size > 0)
    header, _ = stream_predictions(path)
    for name in {**writer.header, **header}:  # a key of one of them alone is a difference too
        if header.get(name) != writer.header.get(name):
            raise _not_this_run(path, name, header.get(name), writer.header.get(name))
    torn = cut_torn_line(path)
    return ResumePoint(frozenset(image.file_name for image in stream_predictions(path)[1]), torn)


def cut_torn_line(path: Path) -> bool:
    """Cut a last line without a line break, as a killed run leaves it, off the file; return whether there was one."""
    whole = _end_of_lines(path)
    torn = path.stat().st_size > whole
    if torn:
        os.truncate(path, whole)
    return torn


def _end_of_lines(path: Path) -> int:
    """Return how many bytes there are up to the end of the last complete line, searching from the end of the file."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0


def _check_torn_header(path: Path, expected: str) -> None:
    line = f"{expected}\n".encode()
    with path.open("rb") as file:
        start = file.read(len(line))
    if not line.startswith(start):  # not a file of this project, so it must not be replaced
        raise _not_this_run(path, "header", start[:60].decode(errors="replace"), expected[:60])


def _not_this_run(path: Path, name: str, actual: object, expected: object) -> PredictionsError:
    return PredictionsError(
        f"{path}, line 1, {name}: another run wrote {actual!r}, this one has {expected!r}; "
        "choose another folder, or start again without --resume"
    )
