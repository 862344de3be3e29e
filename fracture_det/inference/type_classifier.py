"""The type of fracture of a radiograph on which a detector found one: a classifier of the whole picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.checksums import CHECKSUM_FILE, ChecksumError, checked_sha256
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.inference.stage_timer import stage
from fracture_det.structures.detections import Detections
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.processors import available_cpus
from fracture_det.structures.radiograph import Pixels
from fracture_det.structures.strict_json import convert_json, parse_json

CONFIG_FILE, GRAPH_FILE, WEIGHTS_FILE = "classifier.json", "model.xml", "model.bin"
FILES = (CONFIG_FILE, GRAPH_FILE, WEIGHTS_FILE)


class TypeClassifierConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a classifier.json.

    type_names: of the outputs, in their order. sizes: px of the squares that the graph takes, in its order.
    min_score: the detector's raw score (0..1) of a box from which a radiograph is asked about. confidence: probability
    below which no type is to be named; accuracy: the share of right answers at or above it; both chosen, and measured,
    on pictures that the classifier had not seen. fitted_on: the pictures, in words.
    """

    type_names: tuple[str, ...]
    sizes: tuple[int, ...]
    min_score: float
    fitted_on: str
    confidence: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if len(self.type_names) < 2 or not self.sizes or min(self.sizes) < 32:
            raise ValueError("expected two type_names or more, and sizes of 32 px or more")
        for name in ("min_score", "confidence", "accuracy"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}: expected 0..1, got {value!r}")

    def save(self, path: Path) -> None:
        """Write a classifier.json; reading it back gives an equal TypeClassifierConfig."""
        path.write_text(json.dumps(msgspec.to_builtins(self), indent=1) + "\n", encoding="utf-8")


def copy_classifier(source: Path, target: Path) -> None:
    """Copy the files of a classifier from one folder into another. Raises OSError."""
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(source / name, target / name)
    if (source / CHECKSUM_FILE).is_file():
        shutil.copyfile(source / CHECKSUM_FILE, target / CHECKSUM_FILE)


class TypeClassifier:
    """A classifier of types of fracture on OpenVINO. sha256: of its files.

    Raises DetectorError when a file of the folder is missing, broken, or not as its SHA256SUMS says.
    """

    def __init__(self, folder: str | Path) -> None:
        paths = [Path(folder) / name for name in FILES]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise DetectorError(f"{folder}: no {', '.join(missing)}; a classifier of types is {', '.join(FILES)}")
        try:
            self.sha256 = checked_sha256(*paths)
            self.config = convert_json(parse_json(paths[0].read_bytes()), TypeClassifierConfig)
        except ChecksumError as error:
            raise DetectorError(str(error)) from error
        except ValueError as error:
            raise DetectorError(f"{paths[0]}: {error}") from error
        openvino = quiet_openvino()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": available_cpus(), "NUM_STREAMS": 1}
        try:
            self._graph: Any = openvino.Core().compile_model(paths[1], "CPU", settings)
        except RuntimeError as error:
            raise DetectorError(f"{paths[1]}: OpenVINO cannot read it: {str(error).splitlines()[-1]}") from error
        found = [tuple(port.shape) for port in (*self._graph.inputs, *self._graph.outputs)]
        expected = [*((1, 1, size, size) for size in self.config.sizes), (1, len(self.config.type_names))]
        if found != expected:
            raise DetectorError(f"{paths[1]}: shapes {found}, {CONFIG_FILE} says {expected}")

    def probabilities(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability (T,) of each type, if the picture (H, W) uint8 grey shows one fracture."""
        return self.answer(squares_of(picture, self.config.sizes))

    def answer(self, squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the probabilities (T,) for one picture as `squares_of` gives it."""
        request = self._graph.create_infer_request()  # of its own: several threads may ask
        answer: NDArray[np.float32] = request.infer([square[None, None] for square in squares])[0][0]
        return np.asarray(answer / answer.sum(), dtype=np.float32)


def squares_of(picture: NDArray[np.uint8], sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Return a picture (H, W) uint8 as squares (S, S) of each size: aspect ratio kept, in the middle, zeros around."""
    squares = []
    for size in sizes:
        height, width = Letterbox(size).inner_size((picture.shape[0], picture.shape[1]))
        shrinks = max(height, width) < max(picture.shape)
        inner = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        square = np.zeros((size, size), dtype=np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        square[top : top + height, left : left + width] = inner
        squares.append(square)
    return squares


class TypedDetector:
    """A detector, and a classifier that says of which type its findings are; boxes, scores and classes stay the same.

    A radiograph without a box of `min_score` or more has no types. All boxes of another have the types of the whole
    radiograph: a classifier of pictures tells those of the region around a box much worse (docs/types.md).

    detector: what finds the boxes. info: that of the detector, with type names, confidence and accuracy; its hash stays
    that of what finds the boxes, and `about` has the classifier's.
    """

    def __init__(self, detector: Detector, classifier: TypeClassifier) -> None:
        if detector.info.type_names:
            raise DetectorError(f"{detector.info.name} tells types itself, and needs no classifier of types")
        self.detector, self._classifier = detector, classifier
        config = classifier.config
        self.info = replace(
            detector.info,
            type_names=config.type_names,
            type_confidence=config.confidence,
            type_accuracy=config.accuracy,
            about={**detector.info.about, "types told by": f"classifier {classifier.sha256}"},
        )

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        found = self.detector.predict(images)
        with stage("model"):
            return [self._with_types(image, of_image) for image, of_image in zip(images, found, strict=True)]

    def _with_types(self, image: Pixels, found: Detections) -> Detections:
        if not len(found.above(self._classifier.config.min_score)):
            return found
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        return replace(found, types=np.tile(self._classifier.probabilities(grey), (len(found), 1)))
