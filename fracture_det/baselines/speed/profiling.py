"""A profile of one Detectron2 detector: time per stage, and its backbone's share of the machine's arithmetic rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis

from fracture_det.inference.detectron2 import D2Detector
from fracture_det.inference.stage_timer import StageTimer, stage
from fracture_det.structures.markdown_table import markdown_table
from fracture_det.structures.radiograph import read_radiograph

# Stage -> attribute of Detectron2's model; the rest of the stage "model" is normalisation.
PARTS = {"backbone": "backbone", "proposals": "proposal_generator", "heads": "roi_heads"}
STAGES = ("read", "preprocess", *PARTS, "postprocess")
MATRIX = 1536


@dataclass(frozen=True)
class Profile:
    """Median milliseconds of each stage per radiograph, and the backbone's arithmetic.

    backbone_gflop: additions and multiplications of its convolutions for one radiograph, in 10^9. machine_gflops: rate
    of a float32 matrix product of MATRIX x MATRIX here, in 10^9 per second. backbone_share: of that rate.
    """

    name: str
    stages_ms: dict[str, float]
    backbone_gflop: float
    machine_gflops: float

    @property
    def backbone_share(self) -> float:
        """The share of the machine's rate that the backbone reaches, 0..1."""
        return self.backbone_gflop / (self.stages_ms["backbone"] / 1000) / self.machine_gflops

    def as_dict(self) -> dict[str, Any]:
        """Return what a JSON file holds."""
        return {**asdict(self), "backbone_share": self.backbone_share}

    def as_markdown(self) -> list[str]:
        """Return the lines of a table."""
        total = sum(self.stages_ms.values())
        rows = [[name, f"{value:.1f}", f"{100 * value / total:.0f} %"] for name, value in self.stages_ms.items()]
        return [
            markdown_table([f"stage of {self.name}", "median ms", "share"], rows),
            "",
            f"Its backbone does {self.backbone_gflop:.1f} GFLOP a radiograph, at {100 * self.backbone_share:.0f} % of "
            f"the {self.machine_gflops:.0f} GFLOP/s of a float32 matrix product on this machine.",
        ]


def profile(uri: str, images: Sequence[Path]) -> Profile:
    """Return the profile of the detector `uri`, a d2: one, on radiographs in this process."""
    detector = D2Detector.open(uri.removeprefix("d2:"))
    model: Any = detector.predictor.model
    detector.predict([read_radiograph(images[0]).pixels])
    seconds = []
    with _marked(model):
        for path in images:
            with StageTimer() as clock:
                with stage("read"):
                    pixels = read_radiograph(path).pixels
                detector.predict([pixels])
            seconds.append(clock.seconds)
    medians = {
        name: 1000 * float(np.median([image_seconds.get(name, 0.0) for image_seconds in seconds])) for name in STAGES
    }
    size = detector.predictor.letterbox.outer_size(read_radiograph(images[0]).size)
    macs = FlopCountAnalysis(model.backbone, torch.zeros(1, 3, *size))
    macs.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return Profile(detector.info.name, medians, 2 * macs.total() / 1e9, matrix_rate_gflops())


def matrix_rate_gflops(*, repeats: int = 5) -> float:
    """Return the best rate of a float32 matrix product here, in 10^9 operations per second."""
    a, b = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begun)
    return 2 * MATRIX**3 / min(seconds) / 1e9


@contextmanager
def _marked(model: Any) -> Iterator[None]:
    """Time each of PARTS as its stage until the block ends."""

    def marked(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with stage(name):
                return forward(*args, **kwargs)

        return run

    parts = {name: getattr(model, attribute) for name, attribute in PARTS.items()}
    for name, part in parts.items():
        part.forward = marked(name, part.forward)
    try:
        yield
    finally:
        for part in parts.values():
            del part.forward
