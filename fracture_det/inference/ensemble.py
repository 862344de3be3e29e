"""An ensemble with test-time augmentation: several detectors, each in several orientations, fused into one."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.inference.base import Detector, DetectorError, DetectorInfo, card_beside
from fracture_det.inference.registry import open_detector, scheme_and_target
from fracture_det.inference.stage_timer import stage
from fracture_det.inference.type_classifier import TypeClassifier, TypedDetector
from fracture_det.structures.boxes import box_iou
from fracture_det.structures.detections import Detections
from fracture_det.structures.orientations import ORIENTATIONS, orient_image, undo_orientation
from fracture_det.structures.radiograph import Pixels
from fracture_det.structures.strict_json import convert_json, parse_json

ENSEMBLE_FILE = "ensemble.json"
# Its former name.
OLD_ENSEMBLE_FILE = "fusion.json"
# Files of weights/shipped under their former names.
RENAMED_FILES = {OLD_ENSEMBLE_FILE: ENSEMBLE_FILE, "float.json": "ensemble_float.json"}

log = logging.getLogger(__name__)


class EnsembleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of an ensemble.json.

    title: its display name. members: detector URIs, their paths relative to the file.
    orientations: names of ORIENTATIONS, the test-time augmentation: every member predicts the radiograph in each.
    iou: see `weighted_boxes_fusion`. operating_score: the fused score (0..1) from which a box counts as a finding.
    types: folder, relative to the file, of a classifier (`TypeClassifier`) that tells the types of what is found.
    """

    title: str
    members: tuple[str, ...]
    orientations: tuple[str, ...] = ("identity",)
    iou: float = 0.5
    operating_score: float = PAPER_OPERATING_SCORE
    types: str | None = None

    def __post_init__(self) -> None:
        if not self.members or not self.orientations:
            raise ValueError("members and orientations: expected at least one of each")
        if unknown := sorted(set(self.orientations) - set(ORIENTATIONS)):
            raise ValueError(f"orientations: {unknown} unknown; expected some of {', '.join(ORIENTATIONS)}")
        for name, value in (("iou", self.iou), ("operating_score", self.operating_score)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected 0..1, got {value!r}")

    @classmethod
    def load(cls, path: Path) -> EnsembleConfig:
        """Read an ensemble.json. Raises DetectorError naming file, field and value."""
        try:
            return convert_json(parse_json(path.read_bytes()), cls)
        except OSError as error:
            raise DetectorError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise DetectorError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write an ensemble.json; reading it back gives an equal EnsembleConfig."""
        path.write_text(json.dumps(msgspec.to_builtins(self), indent=1) + "\n", encoding="utf-8")


def ensemble_file(target: str | Path) -> Path:
    """Return the ensemble.json that `target`, a folder or the file itself, stands for; it need not exist."""
    path = Path(target)
    if not path.is_dir():
        renamed = path.with_name(RENAMED_FILES.get(path.name, path.name))
        if path.is_file() or not renamed.is_file():
            return path
        log.warning("%s: the file is now called %s", path, renamed.name)
        return renamed
    current, old = path / ENSEMBLE_FILE, path / OLD_ENSEMBLE_FILE
    if current.is_file() or not old.is_file():
        return current
    log.warning("%s: this name is deprecated; call the file %s", old, ENSEMBLE_FILE)
    return old


class EnsembleDetector:
    """Detectors whose predictions, in every orientation, are fused into one.

    info: named by the title and the first digits of the hash, which is of the settings and the members' own.
    card: the model card beside ensemble.json, or None. about: what was changed in the members.

    Raises DetectorError when the members do not know the same classes.
    """

    def __init__(
        self,
        members: Sequence[Detector],
        config: EnsembleConfig,
        *,
        card: Path | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.members, self.config = tuple(members), config
        infos = [member.info for member in members]
        for info in infos:
            if info.class_names != infos[0].class_names:
                raise DetectorError(
                    f"{config.title}: {info.name} knows {info.class_names}, {infos[0].name} {infos[0].class_names}"
                )
            if info.type_names != infos[0].type_names:
                raise DetectorError(
                    f"{config.title}: {info.name} tells types {info.type_names}, {infos[0].name} {infos[0].type_names}"
                )
        settings = [config.orientations, config.iou, [info.sha256 or info.name for info in infos]]
        sha256 = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        devices = dict.fromkeys(info.device for info in infos if info.device)
        inputs = list(dict.fromkeys(info.input for info in infos))
        self.info = DetectorInfo(
            f"{config.title} {sha256[:8]}",
            infos[0].class_names,
            sha256=sha256,
            card=card,
            operating_score=config.operating_score,
            device=", ".join(devices) or None,
            type_names=infos[0].type_names,
            input=inputs[0] if len(inputs) == 1 else None,
            about={
                "members": ", ".join(f"{info.name} ({info.sha256 or '-'})" for info in infos),
                "orientations": ", ".join(config.orientations),
                "fusion IoU": f"{config.iou:g}",
                **(about or {}),
            },
        )

    @classmethod
    def open(cls, target: str, **options: Any) -> Detector:
        """Open a folder with an ensemble.json, or the file itself; `options` go to every member.

        Raises DetectorError when the file, a member or the classifier of types cannot be used.
        """
        path = ensemble_file(target)
        config = EnsembleConfig.load(path)
        try:
            members = [open_detector(_member_uri(path, uri), **options) for uri in config.members]
        except DetectorError as error:
            raise DetectorError(f"{path}, members: {error}") from error
        changed = {"NMS IoU": f"{options['nms_iou']:g}"} if "nms_iou" in options else {}
        ensemble = cls(members, config, card=card_beside(path), about=changed)
        if config.types is None:
            return ensemble
        try:
            return TypedDetector(ensemble, TypeClassifier(path.parent / config.types))
        except DetectorError as error:
            raise DetectorError(f"{path}, types: {error}") from error

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        views = [(index, orientation) for orientation in self.config.orientations for index in range(len(images))]
        with stage("preprocess"):
            oriented = [orient_image(images[index], orientation) for index, orientation in views]
        predictions: list[list[Detections]] = [[] for _ in images]
        for member in self.members:
            # All at once: an exported member works on several at a time.
            for (index, orientation), detections in zip(views, member.predict(oriented), strict=True):
                predictions[index].append(undo_orientation(detections, orientation, images[index].shape[:2]))
        with stage("postprocess"):
            return [weighted_boxes_fusion(of_image, iou=self.config.iou) for of_image in predictions]


def _member_uri(path: Path, uri: str) -> str:
    """Return the URI of a member with its path made relative to the file at `path`."""
    scheme, target = scheme_and_target(uri)
    if not scheme or uri == "shipped":
        raise DetectorError(f"expected scheme:path such as d2:resnet, got {uri!r}")
    if scheme == "ensemble":
        raise DetectorError(f"{uri!r} is itself an ensemble; name its members instead")
    return f"{scheme}:{path.parent / target}"


def weighted_boxes_fusion(predictions: Sequence[Detections], *, iou: float = 0.5) -> Detections:
    """Return the weighted boxes fusion of several predictions of one image (Solovyev, Wang, Gabruseva 2021, section 3).

    Boxes of a class that overlap by more than `iou` become one: the mean of them weighted by score, whose score is
    their sum over predictions (of each the best) divided by the number of predictions, so that what only one of them
    sees counts for less. Scores stay in 0..1. Types become the mean weighted by score, too.
    """
    boxes = np.concatenate([prediction.boxes for prediction in predictions]).astype(np.float64)
    scores = np.concatenate([prediction.scores for prediction in predictions]).astype(np.float64)
    classes = np.concatenate([prediction.classes for prediction in predictions])
    source = np.repeat(np.arange(len(predictions)), [len(prediction) for prediction in predictions])
    # Of each cluster: its centre, what that is the quotient of, its class, which predictions have it, and the sum of
    # their best scores.
    centres, sums = np.zeros((2, len(boxes), 4))
    weights, shares = np.zeros((2, len(boxes)))
    labels, seen = np.zeros(len(boxes), np.int64), np.zeros((len(boxes), len(predictions)), bool)
    types = _types_of(predictions)
    type_sums = np.zeros(types.shape) if types is not None else None
    count = 0
    for index in np.argsort(-scores, kind="stable"):
        own = count
        if count:
            overlaps = np.where(labels[:count] == classes[index], box_iou(boxes[index], centres[:count])[0], 0.0)
            best = int(overlaps.argmax())
            own = best if overlaps[best] > iou else count
        if own == count:
            count += 1
            labels[own] = classes[index]
        if not seen[own, source[index]]:
            seen[own, source[index]] = True
            shares[own] += scores[index]
        sums[own] += scores[index] * boxes[index]
        weights[own] += scores[index]
        if types is not None and type_sums is not None:
            type_sums[own] += scores[index] * types[index]
        centres[own] = sums[own] / weights[own]
    fused_types = None if type_sums is None else type_sums[:count] / weights[:count, None]
    return Detections.from_unsorted(centres[:count], shares[:count] / len(predictions), labels[:count], fused_types)


def _types_of(predictions: Sequence[Detections]) -> NDArray[np.float64] | None:
    """Return the types (N, T) of all boxes of `predictions`, or None where one of them has none."""
    of_each = [prediction.types for prediction in predictions]
    known = [types for types in of_each if types is not None]
    return np.concatenate(known).astype(np.float64) if known and len(known) == len(of_each) else None
