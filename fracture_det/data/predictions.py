"""predictions.jsonl: what a detector found on many radiographs, as a file that needs no model to be read.

The first line is a header: `{"format": "fracture_det predictions", "version": 1, "class_names": [...], "detector"}`.
Each further line is one image: `{"file_name", "height", "width", "detections": [{"box_xyxy_px", "score", "label"}]}`,
or `{"file_name", "error"}` where reading or predicting failed. `"unsuitable"` is why an image does not look like a
radiograph of a limb: beside an error it was not analysed, beside detections it was analysed all the same. `"notes"` are
what else is worth knowing of its file, such as `burned_in`; both are words of docs/suitability.md.
Of a detector that tells types of fracture, `"type_names"` in the header lists them, and `"types"` of a detection is the
probability of each, in that order.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from fracture_det.data.annotation_formats.text import decode_text, marked_encoding
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.detections import Detections
from fracture_det.structures.strict_json import in_words
from fracture_det.structures.wording import counted

FORMAT = "fracture_det predictions"
VERSION = 1
# The key in `about` of the SHA-256 of the detector's weights.
WEIGHTS_SHA256 = "weights SHA-256"
# Of a wrong value, in a message.
SHOWN_LETTERS = 80
# By how much the probabilities of a box's types, which are written rounded, may miss a sum of 1.
TYPES_TOLERANCE = 1e-3


class PredictionsError(ValueError):
    """A predictions file is wrong, or does not fit its data set; the message says file, line, field and value."""


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """A detector's result for one image: detections, or the error that prevented them.

    file_name: path relative to the image folder, with forward slashes.
    size: (height, width) in pixels of the upright image; None only with an error.
    unsuitable: why it does not look like a radiograph of a limb (a reason of docs/suitability.md), or None.
    notes: what else is worth knowing of its file, such as `burned_in` (likewise).
    """

    file_name: str
    size: tuple[int, int] | None = None
    detections: Detections | None = None
    error: str | None = None
    unsuitable: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        has_detections = self.detections is not None and self.size is not None
        if has_detections == (self.error is not None):
            raise ValueError(f"{self.file_name}: expected a size and detections, or an error")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The content of one predictions file.

    detector: the detector's name.
    class_names: what the classes of the detections point to.
    operating_score: score (0..1) from which the detector counts a box as a fracture, or None where it states none.
    about: facts that the detector states about itself, such as the SHA-256 of its weights.
    notes: sentences about what was read with tolerance.
    type_names: what the columns of `Detections.types` are; () of a detector that tells no types.
    """

    detector: str
    class_names: tuple[str, ...]
    images: tuple[ImagePrediction, ...] = ()
    operating_score: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    type_names: tuple[str, ...] = ()

    @property
    def weights_sha256(self) -> str | None:
        """The SHA-256 of the detector's weights, where the file states it."""
        return self.about.get(WEIGHTS_SHA256)

    @property
    def failed(self) -> tuple[ImagePrediction, ...]:
        """The images that could not be predicted."""
        return tuple(image for image in self.images if image.error is not None)


class _Row(msgspec.Struct):
    """One detection as written."""

    box_xyxy_px: tuple[float, float, float, float]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    label: str
    types: list[Annotated[float, msgspec.Meta(ge=0, le=1)]] | None = None


class _ImageLine(msgspec.Struct):
    """One image as written: an error, or all of the others."""

    file_name: str
    height: Annotated[int, msgspec.Meta(ge=1)] | None = None
    width: Annotated[int, msgspec.Meta(ge=1)] | None = None
    detections: list[_Row] | None = None
    error: str | None = None
    unsuitable: str | None = None
    notes: tuple[str, ...] = ()


class _Header(msgspec.Struct):
    """The first line as written, without format and version."""

    detector: str
    class_names: list[str]
    operating_score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    about: dict[str, str] = {}
    type_names: list[str] = []


_image_decoder = msgspec.json.Decoder(_ImageLine)


def read_predictions(path: str | Path) -> Predictions:
    """Read a predictions file; fields that it does not know are ignored.

    Raises PredictionsError naming file, line, field and value: no header, another format or version, broken JSON,
    a missing or wrong field, an unknown label, a file name that occurs twice.
    """
    content, images = _open(path)
    header = msgspec.convert(content, _Header)
    by_name: dict[str, ImagePrediction] = {}
    for place, image in images:
        if image.file_name in by_name:
            raise PredictionsError(f"{place}, file_name: {image.file_name!r} occurs a second time")
        by_name[image.file_name] = image
    encoding = _marked_encoding(Path(path))
    notes = (f"Predictions: the file begins with a byte order mark ({encoding.upper()}).",) if encoding else ()
    return Predictions(
        header.detector,
        tuple(header.class_names),
        tuple(by_name.values()),
        header.operating_score,
        header.about,
        notes,
        tuple(header.type_names),
    )


def stream_predictions(path: str | Path) -> tuple[Mapping[str, Any], Iterator[ImagePrediction]]:
    """Return the header of a predictions file and an iterator over its images, one in memory at a time.

    Raises PredictionsError as `read_predictions` does, for a line when it is reached; names are not compared.
    """
    header, images = _open(path)
    return header, (image for _, image in images)


def _open(path: str | Path) -> tuple[dict[str, Any], Iterator[tuple[str, ImagePrediction]]]:
    """Return the header, and each image with its place for messages."""
    lines = _lines(Path(path))
    place, text = next(lines, ("", b""))
    if not text:
        raise PredictionsError(f"{path}: empty; expected a header line with format {FORMAT!r}")
    header = _decode_header(place, text)
    names: list[str] = header["class_names"]
    class_indices = {name: names.index(name) for name in names}
    n_types = len(header.get("type_names", ()))
    return header, ((place, _decode_image(place, text, class_indices, n_types)) for place, text in lines)


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the place, for messages, and the text of each line that is not blank."""
    try:
        encoding = _marked_encoding(path)
        if encoding is not None:  # seldom, so that the file may be read whole
            lines = [line.encode() for line in decode_text(path.read_bytes())[0].split("\n")]
            yield from ((f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip())
            return
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield f"{path}, line {number}", text
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise PredictionsError(f"{path}: {error}") from error


def _marked_encoding(path: Path) -> str | None:
    """Return the encoding that the byte order mark of a file names, or None without one."""
    with path.open("rb") as file:
        return marked_encoding(file.read(4))


def _decode_header(place: str, text: bytes) -> dict[str, Any]:
    content = _as_python(place, text)
    for name, expected in (("format", FORMAT), ("version", VERSION)):
        value = content.get(name) if isinstance(content, dict) else content
        if isinstance(content, list) and content and isinstance(content[0], dict) and "image_id" in content[0]:
            raise PredictionsError(
                f"{place}: a list of COCO results, not predictions.jsonl, whose first line is a header"
            )
        if value != expected:
            raise PredictionsError(f"{place}, {name}: expected {expected!r} in the first line, got {_shown(value)}")
    try:
        types = msgspec.convert(content, _Header).type_names
    except msgspec.ValidationError as error:
        raise _explain(place, content, error) from error
    if len(set(types)) < len(types):
        raise PredictionsError(f"{place}, type_names: expected different names, got {_shown(types)}")
    return dict(content)


def _decode_image(place: str, text: bytes, class_indices: Mapping[str, int], n_types: int) -> ImagePrediction:
    try:
        line = _image_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        content = _as_python(place, text)
        try:
            line = msgspec.convert(content, _ImageLine)  # NaN and Infinity, which are not JSON but Python's
        except msgspec.ValidationError as error:
            raise _explain(place, content, error) from error
    if line.error is not None:
        return ImagePrediction(line.file_name, error=line.error, unsuitable=line.unsuitable, notes=line.notes)
    if line.height is None or line.width is None or line.detections is None:
        missing = next(name for name in ("height", "width", "detections") if getattr(line, name) is None)
        raise PredictionsError(f"{place}, {missing}: missing, and there is no error")
    rows = line.detections
    for number, row in enumerate(rows):
        if row.label not in class_indices:
            expected = f"expected one of {list(class_indices)}"
            raise PredictionsError(f"{place}, detections[{number}].label: {expected}, got {row.label!r}")
    classes = [class_indices[row.label] for row in rows]
    types = _types_of(place, rows, n_types)
    try:
        boxes = [row.box_xyxy_px for row in rows]
        detections = Detections.from_unsorted(boxes, [row.score for row in rows], classes, types)
    except ValueError as error:
        raise PredictionsError(f"{place}, detections: {error}, got {[row.box_xyxy_px for row in rows]}") from error
    size = (line.height, line.width)
    return ImagePrediction(line.file_name, size, detections, unsuitable=line.unsuitable, notes=line.notes)


def _types_of(place: str, rows: Sequence[_Row], n_types: int) -> list[list[float]] | None:
    """Return the types (N, T) of the detections of an image, or None where none has any; checked."""
    types = [row.types for row in rows if row.types is not None]
    if not types:
        return None
    for number, row in enumerate(rows):
        where, got = f"{place}, detections[{number}].types", _shown(row.types)
        if not n_types:
            raise PredictionsError(f"{where}: expected none, since the first line has no type_names, got {got}")
        if row.types is None:
            raise PredictionsError(f"{where}: missing, and other detections of the image have it")
        if len(row.types) != n_types:
            raise PredictionsError(f"{where}: expected {n_types} numbers, one for each of type_names, got {got}")
        if not abs(sum(row.types) - 1) <= TYPES_TOLERANCE:  # NaN is wrong too
            raise PredictionsError(f"{where}: expected probabilities whose sum is 1, got {got}")
    return types


def _as_python(place: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PredictionsError(f"{place}: not JSON: {error}") from error


def _explain(place: str, content: Any, error: msgspec.ValidationError) -> PredictionsError:
    """Return msgspec's message about the content of a line, with the name and the value of the wrong field."""
    reason, _, path = str(error).partition(" - at ")
    keys = re.findall(r"[^.\[\]`$]+", path)
    for key in keys:
        content = content[int(key) if isinstance(content, list) else key]
    field = path.strip("`$.")
    if missing := re.search(r"missing required field `(.+)`", reason):
        field = f"{field}.{missing[1]}".lstrip(".")
        return PredictionsError(f"{place}, {field}: missing; there is {', '.join(content) or 'nothing'}")
    reason = re.sub(r", got (`\w+`|\d+)$", "", reason)
    reason = re.sub(r"`([^`]+)`", lambda kinds: in_words(kinds[1]), reason)
    where = f"{place}, {field}" if field else place
    return PredictionsError(f"{where}: {reason[0].lower()}{reason[1:]}, got {_shown(content)}")


def _shown(content: Any) -> str:
    shown = repr(content)
    return shown if len(shown) <= SHOWN_LETTERS else f"{shown[:SHOWN_LETTERS]}..."


@dataclass(frozen=True, eq=False)
class AlignedPredictions:
    """Predictions matched to the images and classes of a data set.

    detections: by image id, classes as the data set counts them.
    failures: by image id, the error of an image that could not be predicted.
    not_asked: how many predicted images are not in the data set.
    notes: sentences about what was matched with tolerance.
    """

    detections: Mapping[int, Detections]
    failures: Mapping[int, str]
    not_asked: int
    notes: tuple[str, ...] = ()


def align(predictions: Predictions, dataset: Dataset) -> AlignedPredictions:
    """Match predictions to a data set: images by file name, classes by name.

    A backslash in a name is a slash, and Unicode is compared in its composed form (NFC).
    Raises PredictionsError naming the image when the data set's image is missing, occurs twice or has another size in
    the predictions, and naming the label when the data set does not know a class that was predicted.
    """
    by_name: dict[str, ImagePrediction] = {}
    for image in predictions.images:
        other = by_name.setdefault(_comparable(image.file_name), image)
        if other is not image:
            raise PredictionsError(f"{image.file_name!r} and {other.file_name!r} are one name")
    wanted = {record.image_id: _comparable(record.file_name) for record in dataset}
    missing = [record.file_name for record in dataset if wanted[record.image_id] not in by_name]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise PredictionsError(f"no prediction for {len(missing)} of {counted(len(dataset), 'image')}: {shown}")
    detections: dict[int, Detections] = {}
    failures: dict[int, str] = {}
    renamed: list[str] = []
    for record in dataset:
        image = by_name[wanted[record.image_id]]
        if image.file_name != record.file_name:
            renamed.append(f"{image.file_name!r} is {record.file_name!r}")
        if image.detections is None:
            failures[record.image_id] = str(image.error)
        else:
            detections[record.image_id] = _fit(image, record, predictions.class_names, dataset.class_names)
    not_asked = set(by_name) - set(wanted.values())
    differ = counted(len(renamed), "name differs", "names differ")
    notes = (f"Predictions: {differ} in writing alone; first {renamed[0]}.",) if renamed else ()
    return AlignedPredictions(detections, failures, len(not_asked), notes)


def _comparable(file_name: str) -> str:
    return unicodedata.normalize("NFC", file_name.replace("\\", "/"))


def _fit(image: ImagePrediction, record: ImageRecord, names: tuple[str, ...], wanted: tuple[str, ...]) -> Detections:
    if image.size != record.size:
        raise PredictionsError(
            f"{image.file_name}: predicted on (height, width) {image.size}, but the data set says {record.size}"
        )
    detections = image.detections or Detections.empty()
    unknown = sorted({names[index] for index in detections.classes.tolist()} - set(wanted))
    if unknown:
        raise PredictionsError(f"{image.file_name}, label: expected one of {list(wanted)}, got {unknown[0]!r}")
    classes = [wanted.index(names[index]) for index in detections.classes.tolist()]
    return replace(detections, classes=np.array(classes, dtype=np.int64))
