"""predictions.jsonl: what a detector found on many radiographs, as a file that needs no model to be read.

The first line is a header: `{"format": "fracture_det predictions", "version": 1, "class_names": [...], "detector"}`.
Each further line is one image: `{"file_name", "height", "width", "detections": [{"box_xyxy_px", "score", "label"}]}`,
or `{"file_name", "error"}` where reading or predicting failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.detections import Detections

FORMAT = "fracture_det predictions"
VERSION = 1
# The key in `about` of the SHA-256 of the detector's weights.
WEIGHTS_SHA256 = "weights SHA-256"
# Bytes that are looked through together for the end of a line.
BLOCK = 1 << 16


class PredictionsError(ValueError):
    """A predictions file is wrong, or does not fit its data set; the message says file, line, field and value."""


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """What a detector said about one image: detections, or the error that kept it from saying anything.

    file_name: path relative to the image folder, with forward slashes.
    size: (height, width) in pixels of the upright image; None only with an error.
    """

    file_name: str
    size: tuple[int, int] | None = None
    detections: Detections | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        found = self.detections is not None and self.size is not None
        if found == (self.error is not None):
            raise ValueError(f"{self.file_name}: expected a size and detections, or an error")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The content of one predictions file.

    detector: the detector's name.
    class_names: what the classes of the detections point to.
    operating_score: score (0..1) at which the detector calls a box a fracture, or None where it does not say.
    about: what the detector says of itself, such as the SHA-256 of its weights.
    """

    detector: str
    class_names: tuple[str, ...]
    images: tuple[ImagePrediction, ...] = ()
    operating_score: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights_sha256(self) -> str | None:
        """The SHA-256 of the detector's weights, where the file states it."""
        return self.about.get(WEIGHTS_SHA256)

    @property
    def failed(self) -> tuple[ImagePrediction, ...]:
        """The images about which the detector could say nothing."""
        return tuple(image for image in self.images if image.error is not None)


@dataclass
class PredictionWriter:
    """Writes a predictions file line by line, so that an interrupted run keeps what it has; a context manager.

    archive: of which files the images are, for `resume` and for joining shards; the reader has no use for it.
    append: go on with a file that `resume` has looked at, instead of replacing it.
    """

    path: Path
    detector: str
    class_names: tuple[str, ...]
    operating_score: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    archive: Mapping[str, Any] = field(default_factory=dict)
    append: bool = False
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
        """Append what `image_line` made of one image."""
        if self._file is None:
            raise ValueError(f"{self.path}: the PredictionWriter is not open")
        self._file.write(line + "\n")
        self._file.flush()

    def _write(self, line: Mapping[str, Any]) -> None:
        self.write_line(_as_json(line))


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write a predictions file; reading it back gives equal boxes and scores (exact in float32)."""
    header = (predictions.detector, predictions.class_names, predictions.operating_score, predictions.about)
    with PredictionWriter(Path(path), *header) as writer:
        for image in predictions.images:
            writer.write(image)


def _as_json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def image_line(image: ImagePrediction, class_names: tuple[str, ...]) -> str:
    """Return the line of one image, without its end."""
    return _as_json(_image_values(image, class_names))


def _image_values(image: ImagePrediction, class_names: tuple[str, ...]) -> dict[str, Any]:
    if image.detections is None or image.size is None:
        return {"file_name": image.file_name, "error": image.error}
    found = image.detections
    rows = [
        {
            "box_xyxy_px": [_float32(value) for value in box],
            "score": _float32(score),
            "label": class_names[int(index)],
        }
        for box, score, index in zip(found.boxes, found.scores, found.classes, strict=True)
    ]
    height, width = image.size
    return {"file_name": image.file_name, "height": height, "width": width, "detections": rows}


def _float32(value: np.float32) -> float:
    return float(f"{value:.9g}")  # nine significant digits name every float32


def read_predictions(path: str | Path) -> Predictions:
    """Read a predictions file.

    Raises PredictionsError naming file, line, field and value: no header, another format or version, broken JSON,
    a missing or wrong field, an unknown label, a file name that comes twice.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            return _read_lines(path, file)
    except (OSError, UnicodeDecodeError) as error:
        raise PredictionsError(f"{path}: cannot be read: {error}") from error


@dataclass(frozen=True)
class Resumed:
    """What a killed run left: the names of the images that are done, and whether its last line was torn."""

    done: frozenset[str] = frozenset()
    torn: bool = False


def resume(writer: PredictionWriter) -> Resumed:
    """Return what the file of `writer` already holds, so that a killed run can go on.

    A last line without an end was torn by the kill: it is taken off, but only off a file of this run.
    Raises PredictionsError, with the file as it was, when another detector, calibration or input wrote it.
    """
    path, size, whole = writer.path, writer.path.stat().st_size, _end_of_lines(writer.path)
    if whole == 0:
        _check_torn_header(path, _as_json(writer.header))
        return Resumed(torn=size > 0)
    header, images = stream_predictions(path)
    for name in {**writer.header, **header}:  # of both: what only the file says is a difference too
        if header.get(name) != writer.header.get(name):
            raise _not_this_run(path, name, header.get(name), writer.header.get(name))
    if size > whole:
        os.truncate(path, whole)
    return Resumed(frozenset(image.file_name for image in images), size > whole)


def _end_of_lines(path: Path) -> int:
    """Return the bytes up to the end of the last whole line, found from behind however long the file is."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def _check_torn_header(path: Path, expected: str) -> None:
    line = f"{expected}\n".encode()
    with path.open("rb") as file:
        found = file.read(len(line))
    if not line.startswith(found):  # somebody else's file, which is not ours to replace
        raise _not_this_run(path, "header", found[:60].decode(errors="replace"), expected[:60])


def _not_this_run(path: Path, name: str, found: object, expected: object) -> PredictionsError:
    return PredictionsError(
        f"{path}, line 1, {name}: another run wrote {found!r}, this one has {expected!r}; "
        "choose another folder, or start anew without --resume"
    )


def stream_predictions(path: str | Path) -> tuple[Mapping[str, Any], Iterator[ImagePrediction]]:
    """Return the header of a predictions file and an iterator over its images, one in memory at a time.

    Raises PredictionsError as `read_predictions` does, for a line when it is reached; names are not compared.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise PredictionsError(f"{path}: cannot be read: {error}") from error
    if not text.strip():
        raise PredictionsError(f"{path}: empty; expected a header line with format {FORMAT!r}")
    header = _check_header(_Line(f"{path}, line 1", text))
    return header, _stream_images(path, header["class_names"])


def _stream_images(path: Path, class_names: list[str]) -> Iterator[ImagePrediction]:
    with path.open(encoding="utf-8") as file:
        next(file)
        for number, text in enumerate(file, 2):
            if text.strip():
                yield _read_image(_Line(f"{path}, line {number}", text), class_names)


def _read_lines(path: Path, lines: Iterable[str]) -> Predictions:
    header: Mapping[str, Any] | None = None
    images: dict[str, ImagePrediction] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        line = _Line(f"{path}, line {number}", text)
        if header is None:
            header = _check_header(line)
        else:
            image = _read_image(line, header["class_names"])
            if image.file_name in images:
                raise line.error("file_name", f"{image.file_name!r} comes a second time")
            images[image.file_name] = image
    if header is None:
        raise PredictionsError(f"{path}: empty; expected a header line with format {FORMAT!r}")
    score = header.get("operating_score")
    names = tuple(header["class_names"])
    about = header.get("about", {})
    return Predictions(
        header["detector"], names, tuple(images.values()), None if score is None else float(score), about
    )


class _Line:
    """One line of the file, with errors that say where it is."""

    def __init__(self, place: str, text: str) -> None:
        self.place = place
        try:
            self.values = json.loads(text)
        except json.JSONDecodeError as error:
            raise PredictionsError(f"{place}: not JSON: {error}") from error
        if not isinstance(self.values, dict):
            raise PredictionsError(f"{place}: expected a JSON object, got {text.strip()[:60]!r}")

    def error(self, name: str, detail: str) -> PredictionsError:
        return PredictionsError(f"{self.place}, {name}: {detail}")

    def get(self, name: str, kind: type | tuple[type, ...], values: Mapping[str, Any] | None = None) -> Any:
        row = self.values if values is None else values
        if name not in row:
            raise self.error(name, f"missing; the line has {', '.join(row) or 'nothing'}")
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise self.error(name, f"expected {_kind_name(kind)}, got {row[name]!r}")
        return row[name]


def _kind_name(kind: type | tuple[type, ...]) -> str:
    words = {str: "text", int: "a whole number", list: "a list", dict: "an object"}
    return "a number" if isinstance(kind, tuple) else words[kind]


def _check_header(line: _Line) -> Mapping[str, Any]:
    if line.values.get("format") != FORMAT:
        raise line.error("format", f"expected {FORMAT!r} in the first line, got {line.values.get('format')!r}")
    if line.values.get("version") != VERSION:
        raise line.error("version", f"this program reads version {VERSION}, got {line.values.get('version')!r}")
    line.get("detector", str)
    if not all(isinstance(name, str) for name in line.get("class_names", list)):
        raise line.error("class_names", f"expected a list of texts, got {line.values['class_names']!r}")
    if line.values.get("operating_score") is not None and not 0 <= line.get("operating_score", (int, float)) <= 1:
        raise line.error("operating_score", f"expected 0..1, got {line.values['operating_score']!r}")
    about = line.values.get("about", {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise line.error("about", f"expected an object of texts, got {about!r}")
    return line.values


def _read_image(line: _Line, class_names: list[str]) -> ImagePrediction:
    file_name = line.get("file_name", str)
    if line.values.get("error") is not None:
        return ImagePrediction(file_name, error=line.get("error", str))
    size = line.get("height", int), line.get("width", int)
    if min(size) < 1:
        raise line.error("height, width", f"expected at least 1, got {size[0]} and {size[1]}")
    boxes, scores, classes = [], [], []
    for row in line.get("detections", list):
        if not isinstance(row, dict):
            raise line.error("detections", f"expected objects, got {row!r}")
        boxes.append(_read_box(line, row))
        scores.append(line.get("score", (int, float), row))
        label = line.get("label", str, row)
        if label not in class_names:
            raise line.error("label", f"expected one of {class_names}, got {label!r}")
        classes.append(class_names.index(label))
    try:
        return ImagePrediction(file_name, size, Detections.from_unsorted(boxes, scores, classes))
    except ValueError as error:
        raise line.error("detections", str(error)) from error


def _read_box(line: _Line, row: Mapping[str, Any]) -> list[float]:
    box = line.get("box_xyxy_px", list, row)
    if len(box) != 4 or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in box):
        raise line.error("box_xyxy_px", f"expected four numbers x0 y0 x1 y1, got {box!r}")
    return box


@dataclass(frozen=True, eq=False)
class AlignedPredictions:
    """Predictions brought to the images and classes of a data set.

    detections: by image id, classes as the data set counts them.
    failures: by image id, the error that stands in place of detections.
    not_asked: how many images of the predictions are not in the data set.
    """

    detections: Mapping[int, Detections]
    failures: Mapping[int, str]
    not_asked: int


def align(predictions: Predictions, dataset: Dataset) -> AlignedPredictions:
    """Bring predictions to a data set: images by file name, classes by their names.

    Raises PredictionsError naming the image when the data set's image is missing or has another size in the
    predictions, and naming the label when the data set does not know a class that was predicted.
    """
    by_name = {image.file_name: image for image in predictions.images}
    missing = [record.file_name for record in dataset if record.file_name not in by_name]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise PredictionsError(f"no prediction for {len(missing)} of {len(dataset)} images: {shown}")
    detections: dict[int, Detections] = {}
    failures: dict[int, str] = {}
    for record in dataset:
        image = by_name[record.file_name]
        if image.detections is None:
            failures[record.image_id] = str(image.error)
        else:
            detections[record.image_id] = _fit(image, record, predictions.class_names, dataset.class_names)
    not_asked = set(by_name) - {record.file_name for record in dataset}
    return AlignedPredictions(detections, failures, len(not_asked))


def _fit(image: ImagePrediction, record: ImageRecord, names: tuple[str, ...], wanted: tuple[str, ...]) -> Detections:
    if image.size != record.size:
        raise PredictionsError(
            f"{image.file_name}: predicted on (height, width) {image.size}, but the data set says {record.size}"
        )
    found = image.detections or Detections.empty()
    unknown = sorted({names[index] for index in found.classes.tolist()} - set(wanted))
    if unknown:
        raise PredictionsError(f"{image.file_name}, label: expected one of {list(wanted)}, got {unknown[0]!r}")
    classes = [wanted.index(names[index]) for index in found.classes.tolist()]
    return Detections(found.boxes, found.scores, np.array(classes, dtype=np.int64))
