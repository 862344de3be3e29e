"""What exported detectors share, whichever runtime runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.inference.base import DetectorError, DetectorInfo, ModelInput
from fracture_det.inference.checksums import ChecksumError, checked_sha256
from fracture_det.inference.stage_timer import stage
from fracture_det.structures.detections import Detections
from fracture_det.structures.letterbox import Letterbox, detections_on_image, group_by_letterbox_size
from fracture_det.structures.radiograph import Pixels
from fracture_det.structures.strict_json import convert_json, parse_json

# Key of the JSON in a file's own metadata that makes the file enough to predict.
FACTS_KEY = "fracture_det"
# Of one call of the graph: boxes (M, 4) XYXY letterbox px, scores (M,), classes (M,), image (M,) in the batch; and of a
# graph that tells types of fracture, types (M, T).
GraphOutputs = tuple[NDArray[Any], ...]
# From batches (batch_size, H, W, 3) uint8 RGB to the outputs of each, in order.
Engine = Callable[[Sequence[Pixels]], list[GraphOutputs]]


@dataclass(frozen=True)
class GraphFacts:
    """What a file says of the graph in it. Unknown fields, of a later version, are ignored.

    title: the model's display name. class_names: in the order of the class indices.
    letterbox_px, letterbox_step: of the Letterbox that makes what the graph takes, uint8 RGB; it normalises by itself.
    batch_size: images per call. operating_score: from which a box counts as a finding.
    precision: of the arithmetic, "fp32" or "int8". source_sha256: of the weights that were exported.
    about: what else is needed to reproduce it, such as normalisation, NMS IoU and what was changed on the way.
    calibration: content of the source's calibration.json, for readers; it holds for the source's scores.
    type_names: what the columns of the output `types` are; () for a graph without it, as all of earlier versions.
    """

    title: str
    class_names: tuple[str, ...]
    letterbox_px: int
    batch_size: int
    operating_score: float
    precision: str
    source_sha256: str
    about: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    letterbox_step: int | None = None
    type_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "type_names", tuple(self.type_names))
        sizes = {
            "letterbox_px": self.letterbox_px,
            "batch_size": self.batch_size,
            "letterbox_step": self.letterbox_step,
        }
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a whole number from 1 on, got {value!r}")
        if not 0 <= self.operating_score <= 1:
            raise ValueError(f"operating_score: expected 0..1, got {self.operating_score!r}")

    def to_json(self) -> str:
        """Return the text that stands in a file's metadata under FACTS_KEY."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> GraphFacts:
        """Read `text` of the file at `path`. Raises DetectorError naming file, field and value."""
        if not text:
            raise DetectorError(f"{path}: no {FACTS_KEY!r} in its metadata; export it with tools/export_model.py")
        try:
            return convert_json(parse_json(text), cls)
        except ValueError as error:
            raise DetectorError(f"{path}, metadata {FACTS_KEY!r}: {error}") from error


class ExportedDetector:
    """An exported graph as a Detector.

    info: named by title, runtime, precision and the first digits of the hash, which is of the file or files.
    """

    def __init__(
        self,
        engine: Engine,
        facts: GraphFacts,
        *,
        runtime: str,
        sha256: str,
        card: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self._engine, self.facts = engine, facts
        self.letterbox = Letterbox(facts.letterbox_px, facts.letterbox_step)
        self.info = DetectorInfo(
            f"{facts.title} {runtime} {facts.precision} {sha256[:8]}",
            facts.class_names,
            sha256=sha256,
            card=card,
            operating_score=facts.operating_score,
            device=f"{device} ({runtime})",
            input=ModelInput(self.letterbox),
            about={
                "exported from SHA-256": facts.source_sha256,
                "runtime": runtime,
                "precision": facts.precision,
                **facts.about,
            },
            type_names=facts.type_names,
        )

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB, in its pixels, down to the graph's own floor."""
        if not images:
            return []
        with stage("preprocess"):
            groups = group_by_letterbox_size(images, self.letterbox, max_batch=self.facts.batch_size)
            batches = [self._batch([images[index] for index in group]) for group in groups]
        with stage("model"):
            outputs = self._engine(batches)
        with stage("postprocess"):
            detections = {
                index: self._detections(of_batch, place, images[index].shape[:2])
                for group, of_batch in zip(groups, outputs, strict=True)
                for place, index in enumerate(group)
            }
            return [detections[index] for index in range(len(images))]

    def _detections(self, outputs: GraphOutputs, place: int, size: tuple[int, int]) -> Detections:
        """Return what the outputs of a batch say of its image `place`, of `size` (h, w).

        Raises DetectorError for other outputs than the file's metadata say.
        """
        boxes, scores, classes, image, *types = outputs
        if [of_each.shape[1:] for of_each in types] != [(len(self.facts.type_names),)] * bool(self.facts.type_names):
            raise DetectorError(
                f"{self.info.name}: {len(outputs)} outputs, of shapes {[output.shape for output in outputs]}, for the "
                f"types {list(self.facts.type_names)} of its metadata"
            )
        on = image == place
        of_types = types[0][on] if types else None
        return detections_on_image(boxes[on], scores[on], classes[on], self.letterbox, size, of_types)

    def _batch(self, images: Sequence[Pixels]) -> Pixels:
        """Return (batch_size, H, W, 3) of images of one letterbox size; what is missing is black."""
        size = self.letterbox.outer_size(images[0].shape[:2])
        batch = np.zeros((self.facts.batch_size, *size, 3), np.uint8)
        for out, image in zip(batch, images, strict=False):
            self.letterbox.apply_image(image, out=out)
        return batch


def model_file(target: str, name: str) -> Path:
    """Return the file `target`, or `name` in the folder `target`. Raises DetectorError when there is none."""
    path = Path(target) / name if Path(target).is_dir() else Path(target)
    if not path.is_file():
        raise DetectorError(f"{path}: no such file; make one with tools/export_model.py")
    return path


def model_sha256(*paths: Path) -> str:
    """Return the SHA-256 of a model's files. Raises DetectorError when one is not as SHA256SUMS says."""
    try:
        return checked_sha256(*paths)
    except ChecksumError as error:
        raise DetectorError(str(error)) from error
