"""What all baselines share: how a network becomes a Detector, in PyTorch or OpenVINO, at its own input size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torchvision.ops import batched_nms

from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.inference.base import DetectorError, DetectorInfo, ModelInput
from fracture_det.inference.checksums import checked_sha256
from fracture_det.inference.openvino import openvino_engine
from fracture_det.inference.stage_timer import stage
from fracture_det.structures.detections import Detections
from fracture_det.structures.letterbox import Letterbox, detections_on_image
from fracture_det.structures.processors import available_cpus
from fracture_det.structures.radiograph import Pixels

# Instead of a file: seeded random weights. Their boxes mean nothing; they are for measuring speed.
RANDOM = "random"
SEED = 0
CLASS_NAMES = ("fracture",)
SCORE_FLOOR, NMS_IOU, MAX_BOXES = 0.05, 0.5, 100
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Boxes (N, 4) XYXY in pixels of the network's input, scores (N,) 0..1, classes (N,) from 0.
Decoded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Outputs = Sequence[torch.Tensor]
# A network's input for one radiograph, (1, 3, H, W) float32.
Batch = NDArray[np.float32]
# From inputs, one radiograph each, to the network's outputs for each, in order.
Run = Callable[[Sequence[Batch]], list[Outputs]]


@dataclass(frozen=True)
class Baseline:
    """How to build a baseline's network, prepare its input and decode its output.

    scheme: of its URIs, such as "detr". title: its name in tables. frame: how its own library scales a radiograph.
    build: returns the network, from (1, 3, H, W) float32 to a tuple of tensors. decode: from these tensors, and the
    (H, W) of the input, to boxes. mean, std: normalisation of RGB in 0..1. transformer: NNCF quantizes attention
    differently from convolutions, and radiographs in parallel take longer than one after the other.
    """

    scheme: str
    title: str
    frame: Letterbox
    build: Callable[[], nn.Module]
    decode: Callable[[Outputs, tuple[int, int]], Decoded]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    transformer: bool = False

    def preprocess(self, image: Pixels) -> Batch:
        """Return the network's input for an image (H, W, 3) uint8 RGB."""
        # As one multiplication and one addition per value.
        scale = (1 / (255 * np.array(self.std))).astype(np.float32)
        shift = (-np.array(self.mean) / self.std).astype(np.float32)
        scaled = self.frame.apply_image(image) * scale + shift
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])

    def load_network(self, weights: str) -> nn.Module:
        """Return the network with the weights of a .safetensors file, or with RANDOM weights.

        Raises DetectorError when a package or the file is missing, or does not fit the network.
        """
        torch.manual_seed(SEED)
        try:
            network = self.build().eval()
        except ModuleNotFoundError as error:
            raise DetectorError(
                f"{self.title}: needs {error.name}, which is not installed; make setup brings it"
            ) from error
        if weights != RANDOM:
            _load_weights(network, Path(weights), self.title)
        return network


class BaselineDetector:
    """A baseline as a Detector; `run` calls its network, in any runtime."""

    def __init__(self, baseline: Baseline, run: Run, *, name: str) -> None:
        self.baseline, self._run = baseline, run
        self.info = DetectorInfo(
            name, CLASS_NAMES, operating_score=PAPER_OPERATING_SCORE, device="cpu", input=ModelInput(baseline.frame)
        )

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        with stage("preprocess"):
            batches = [self.baseline.preprocess(image) for image in images]
        with stage("model"):
            outputs = self._run(batches)
        with stage("postprocess"):
            return [self._decode(*of_image) for of_image in zip(outputs, batches, images, strict=True)]

    def _decode(self, outputs: Outputs, batch: Batch, image: Pixels) -> Detections:
        boxes, scores, classes = self.baseline.decode(outputs, (batch.shape[2], batch.shape[3]))
        above_floor = scores >= SCORE_FLOOR
        boxes, scores, classes = boxes[above_floor], scores[above_floor], classes[above_floor]
        kept = batched_nms(boxes, scores, classes, NMS_IOU)[:MAX_BOXES]
        arrays = (boxes[kept].numpy(), scores[kept].numpy(), classes[kept].numpy())
        return detections_on_image(*arrays, self.baseline.frame, image.shape[:2])


def open_baseline(baseline: Baseline, target: str) -> BaselineDetector:
    """Open `target`: RANDOM, a .safetensors file, or an .xml of `export_baseline`.

    Raises DetectorError when a package or the file is missing, or the file does not fit the network.
    """
    if target.endswith(".xml"):
        return _open_openvino(baseline, Path(target))
    network = baseline.load_network(target)
    torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))

    @torch.no_grad()
    def run(batches: Sequence[Batch]) -> list[Outputs]:
        return [network(torch.from_numpy(batch)) for batch in batches]

    name = "random weights" if target == RANDOM else checked_sha256(Path(target))[:8]
    return BaselineDetector(baseline, run, name=f"{baseline.title} {name}")


def _open_openvino(baseline: Baseline, path: Path) -> BaselineDetector:
    if not path.is_file():
        raise DetectorError(f"{path}: no such file")
    engine = openvino_engine(path, side_by_side=not baseline.transformer)

    def run(batches: Sequence[Batch]) -> list[Outputs]:
        return [[torch.from_numpy(output) for output in outputs] for outputs in engine(batches)]

    return BaselineDetector(baseline, run, name=f"{baseline.title} OpenVINO {path.parent.name}")


def _load_weights(network: nn.Module, path: Path, title: str) -> None:
    if not path.is_file() or path.suffix != ".safetensors":
        raise DetectorError(
            f"{title}: expected a training folder, {RANDOM!r} or a .safetensors file, got {str(path)!r}"
        )
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, ValueError) as error:
        raise DetectorError(f"{path}: not weights of {title}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class ShortestSide(Letterbox):
    """The shortest side scaled to `size` px, or the longest to `longest_px` where that is less; nothing is padded."""

    longest_px: int = 1333

    def inner_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that an image of `size` (height, width) gets."""
        height, width = size
        scale = min(self.size / min(height, width), self.longest_px / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def apply_image(self, pixels: Pixels, *, out: Pixels | None = None) -> Pixels:
        """Return the scaled image of `pixels` (H, W, C) uint8."""
        inner = np.zeros((*self.inner_size(pixels.shape[:2]), *pixels.shape[2:]), np.uint8) if out is None else out
        return super().apply_image(pixels, out=inner)


class TupleOutputs(nn.Module):
    """A network whose output is converted to a plain tuple of tensors, by `outputs(network, batch)`."""

    def __init__(self, network: Any, outputs: Callable[[Any, torch.Tensor], Outputs]) -> None:
        super().__init__()
        self.network, self._outputs = network, outputs

    def forward(self, batch: torch.Tensor) -> Outputs:
        """Return the tensors for a batch (1, 3, H, W) float32."""
        return tuple(self._outputs(self.network, batch))
