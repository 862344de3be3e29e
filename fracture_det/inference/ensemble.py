"""Several detectors, and several orientations of the radiograph, that answer as one detector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracture_det.inference.base import Detector, DetectorError, DetectorInfo, card_beside
from fracture_det.inference.fusion import weighted_boxes_fusion
from fracture_det.inference.registry import open_detector
from fracture_det.inference.timing import stage
from fracture_det.structures.detections import Detections
from fracture_det.structures.orientations import ORIENTATIONS, orient_image, undo_orientation
from fracture_det.structures.radiograph import Pixels

ENSEMBLE_FILE = "fusion.json"


@dataclass(frozen=True)
class EnsembleConfig:
    """What is fused, and how.

    title: what people call the whole. members: detector URIs, their paths relative to the file.
    orientations: names of ORIENTATIONS that every member looks at the radiograph in. iou: see `weighted_boxes_fusion`.
    operating_score: the fused score (0..1) from which a box counts as a finding.
    """

    title: str
    members: tuple[str, ...]
    orientations: tuple[str, ...] = ("identity",)
    iou: float = 0.5
    operating_score: float = 0.5

    def __post_init__(self) -> None:
        for name in ("members", "orientations"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a list, got {getattr(self, name)!r}")
        object.__setattr__(self, "members", tuple(self.members))
        object.__setattr__(self, "orientations", tuple(self.orientations))
        if not self.members or not self.orientations:
            raise ValueError("members and orientations: expected at least one of each")
        if unknown := sorted(set(self.orientations) - set(ORIENTATIONS)):
            raise ValueError(f"orientations: {unknown} unknown; expected some of {', '.join(ORIENTATIONS)}")
        for name in ("iou", "operating_score"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name}: expected 0..1, got {value!r}")

    @classmethod
    def load(cls, path: Path) -> EnsembleConfig:
        """Read a fusion.json. Raises DetectorError naming file, field and value."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DetectorError(f"{path}: {error}") from error


class EnsembleDetector:
    """Detectors whose answers, in every orientation, are fused into one.

    info: named by the title and the first digits of the hash, which is of the settings and the members' own.
    card: the model card beside fusion.json, or None.

    Raises DetectorError when the members do not know the same classes.
    """

    def __init__(self, members: Sequence[Detector], fusion: EnsembleConfig, *, card: Path | None = None) -> None:
        self.members, self.fusion = tuple(members), fusion
        infos = [member.info for member in members]
        for info in infos:
            if info.class_names != infos[0].class_names:
                raise DetectorError(
                    f"{fusion.title}: {info.name} knows {info.class_names}, {infos[0].name} {infos[0].class_names}"
                )
        settings = [fusion.orientations, fusion.iou, [info.sha256 or info.name for info in infos]]
        sha256 = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        devices = dict.fromkeys(info.device for info in infos if info.device)
        inputs = list(dict.fromkeys(info.input for info in infos))
        self.info = DetectorInfo(
            f"{fusion.title} {sha256[:8]}",
            infos[0].class_names,
            sha256=sha256,
            card=card,
            operating_score=fusion.operating_score,
            device=", ".join(devices) or None,
            input=inputs[0] if len(inputs) == 1 else None,
            about={
                "members": ", ".join(f"{info.name} ({info.sha256 or '-'})" for info in infos),
                "orientations": ", ".join(fusion.orientations),
                "fusion IoU": f"{fusion.iou:g}",
            },
        )

    @classmethod
    def open(cls, target: str, **options: Any) -> EnsembleDetector:
        """Open a folder with a fusion.json, or the file itself; `options` go to every member.

        Raises DetectorError when the file or a member cannot be used.
        """
        path = Path(target)
        path = path / ENSEMBLE_FILE if path.is_dir() else path
        fusion = EnsembleConfig.load(path)
        members = [open_detector(_beside(path, uri), **options) for uri in fusion.members]
        return cls(members, fusion, card=card_beside(path))

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        ways = [(index, orientation) for orientation in self.fusion.orientations for index in range(len(images))]
        with stage("preprocess"):
            turned = [orient_image(images[index], orientation) for index, orientation in ways]
        answers: list[list[Detections]] = [[] for _ in images]
        for member in self.members:
            # All at once: an exported member works on several at a time.
            for (index, orientation), found in zip(ways, member.predict(turned), strict=True):
                answers[index].append(undo_orientation(found, orientation, images[index].shape[:2]))
        with stage("postprocess"):
            return [weighted_boxes_fusion(own, iou=self.fusion.iou) for own in answers]


def _beside(path: Path, uri: str) -> str:
    scheme, colon, target = uri.partition(":")
    if not colon:
        raise DetectorError(f"{path}, members: expected scheme:path such as d2:resnet, got {uri!r}")
    if scheme == "fused":
        raise DetectorError(f"{path}, members: {uri!r} is itself fused; name its members instead")
    return f"{scheme}:{path.parent / target}"
