"""The paper's rivals behind the Detector protocol, for comparison: each at its own input size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torchvision.ops import batched_nms, box_convert

from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.export.nncf import quiet_nncf, read_for_nncf
from fracture_det.inference.base import DetectorError, DetectorInfo, ModelInput
from fracture_det.inference.checksums import checked_sha256
from fracture_det.inference.openvino import openvino_engine, quiet_openvino
from fracture_det.inference.processors import available_cpus
from fracture_det.inference.timing import stage
from fracture_det.structures.detections import Detections
from fracture_det.structures.letterbox import Letterbox, detections_on_image
from fracture_det.structures.radiograph import Pixels

# In place of a file: seeded random weights. Their boxes mean nothing; they are for measuring time.
RANDOM = "random"
SEED = 0
CLASS_NAMES = ("fracture",)
SCORE_FLOOR, NMS_IOU, MAX_BOXES = 0.05, 0.5, 100
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Boxes (N, 4) XYXY in pixels of what the network was fed, scores (N,) 0..1, classes (N,) from 0.
Decoded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Outputs = Sequence[torch.Tensor]
# What a network is fed, (1, 3, H, W) float32.
Batch = NDArray[np.float32]
# From what is fed, one radiograph each, to what each makes the network answer, in order.
Run = Callable[[Sequence[Batch]], list[Outputs]]


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


@dataclass(frozen=True)
class Baseline:
    """How one rival is built, fed and read.

    frame: how its own library scales a radiograph. build: the network; (1, 3, H, W) float32 to a tuple of tensors.
    decode: from these, and the (H, W) that was fed, to boxes. mean, std: what RGB in 0..1 is normalised with.
    transformer: NNCF quantizes attention otherwise than convolutions, and several radiographs side by side take longer
    than one after the other.
    """

    title: str
    frame: Letterbox
    build: Callable[[], nn.Module]
    decode: Callable[[Outputs, tuple[int, int]], Decoded]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    transformer: bool = False

    def feed(self, image: Pixels) -> Batch:
        """Return what the network is fed for an image (H, W, 3) uint8 RGB."""
        # One multiplication and one addition per value.
        scale = (1 / (255 * np.array(self.std))).astype(np.float32)
        shift = (-np.array(self.mean) / self.std).astype(np.float32)
        scaled = self.frame.apply_image(image) * scale + shift
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])

    def network(self, weights: str) -> nn.Module:
        """Return the network with the weights of a .safetensors file, or RANDOM ones.

        Raises DetectorError when a package or the file is missing, or does not fill the network.
        """
        torch.manual_seed(SEED)
        try:
            network = self.build().eval()
        except ModuleNotFoundError as error:
            raise DetectorError(
                f"{self.title}: needs {error.name}, which is not installed; make setup brings it"
            ) from error
        if weights != RANDOM:
            _fill(network, Path(weights), self.title)
        return network


def _fill(network: nn.Module, path: Path, title: str) -> None:
    if not path.is_file() or path.suffix != ".safetensors":
        raise DetectorError(f"{title}: expected {RANDOM!r} or a .safetensors file, got {str(path)!r}")
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, ValueError) as error:
        raise DetectorError(f"{path}: not weights of {title}: {str(error).splitlines()[0]}") from error


class BaselineDetector:
    """A rival as a Detector; `run` is its network, in whatever runtime."""

    def __init__(self, rival: Baseline, run: Run, *, name: str) -> None:
        self.rival, self._run = rival, run
        self.info = DetectorInfo(
            name, CLASS_NAMES, operating_score=PAPER_OPERATING_SCORE, device="cpu", input=ModelInput(rival.frame)
        )

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        with stage("preprocess"):
            batches = [self.rival.feed(image) for image in images]
        with stage("model"):
            answers = self._run(batches)
        with stage("postprocess"):
            return [self._read(*one) for one in zip(answers, batches, images, strict=True)]

    def _read(self, outputs: Outputs, batch: Batch, image: Pixels) -> Detections:
        boxes, scores, classes = self.rival.decode(outputs, (batch.shape[2], batch.shape[3]))
        seen = scores >= SCORE_FLOOR
        boxes, scores, classes = boxes[seen], scores[seen], classes[seen]
        kept = batched_nms(boxes, scores, classes, NMS_IOU)[:MAX_BOXES]
        answer = (boxes[kept].numpy(), scores[kept].numpy(), classes[kept].numpy())
        return detections_on_image(*answer, self.rival.frame, image.shape[:2])


def opener(scheme: str) -> Callable[[str], BaselineDetector]:
    """Return what opens `scheme:TARGET`: RANDOM, a .safetensors file, or an .xml of the exports below."""

    def open_rival(target: str) -> BaselineDetector:
        rival = BASELINES[scheme]
        if target.endswith(".xml"):
            return _open_openvino(rival, Path(target))
        network = rival.network(target)
        torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))

        @torch.no_grad()
        def run(batches: Sequence[Batch]) -> list[Outputs]:
            return [network(torch.from_numpy(batch)) for batch in batches]

        name = "random weights" if target == RANDOM else checked_sha256(Path(target))[:8]
        return BaselineDetector(rival, run, name=f"{rival.title} {name}")

    return open_rival


def _open_openvino(rival: Baseline, path: Path) -> BaselineDetector:
    if not path.is_file():
        raise DetectorError(f"{path}: no such file")
    engine = openvino_engine(path, side_by_side=not rival.transformer)

    def run(batches: Sequence[Batch]) -> list[Outputs]:
        return [[torch.from_numpy(output) for output in outputs] for outputs in engine(batches)]

    return BaselineDetector(rival, run, name=f"{rival.title} OpenVINO {path.parent.name}")


def export_baseline(scheme: str, weights: str, path: Path) -> None:
    """Write a rival's network for OpenVINO to `path`, an .xml, by way of ONNX."""
    rival = BASELINES[scheme]
    network = rival.network(weights)
    # Not square, so that height and width cannot be mistaken for each other.
    example = torch.from_numpy(rival.feed(np.full((500, 400, 3), 128, np.uint8)))
    free = {"images": {2: "height", 3: "width"}} if isinstance(rival.frame, ShortestSide) else None
    openvino = quiet_openvino()
    with TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all other shapes are taken as constants, which they are
        between = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (example,),
            str(between),
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            dynamic_axes=free,
        )
        _save_openvino(openvino.Core().read_model(between), path, half=False)


def quantize_baseline(scheme: str, exported: Path, path: Path, images: Sequence[Pixels]) -> None:
    """Write the .xml of `export_baseline` with INT8 arithmetic to `path`; ranges are those of `images`."""
    nncf = quiet_nncf()
    rival = BASELINES[scheme]
    quantized = nncf.quantize(
        read_for_nncf(exported),
        nncf.Dataset([rival.feed(image) for image in images]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if rival.transformer else None,
    )
    _save_openvino(quantized, path, half=True)


def _save_openvino(model: Any, path: Path, *, half: bool) -> None:
    """Write .bin, then .xml, so that an .xml that is there is complete: runs that use it again may be killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / path.name
        quiet_openvino().save_model(model, written, compress_to_fp16=half)
        written.with_suffix(".bin").replace(path.with_suffix(".bin"))
        written.replace(path)


class _Wrapped(nn.Module):
    """A network whose answer is made a plain tuple of tensors."""

    def __init__(self, network: Any, outputs: Callable[[Any, torch.Tensor], Outputs]) -> None:
        super().__init__()
        self.network, self._outputs = network, outputs

    def forward(self, batch: torch.Tensor) -> Outputs:
        return tuple(self._outputs(self.network, batch))


def _build_torchvision() -> nn.Module:
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    # It normalises by itself; its own scaling, to the same shortest side, leaves what ShortestSide gives as it is.
    network = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=1 + len(CLASS_NAMES))
    return _Wrapped(network, lambda model, batch: [model([batch[0]])[0][key] for key in ("boxes", "scores", "labels")])


def _decode_torchvision(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    boxes, scores, labels = outputs
    return boxes, scores, labels - 1


def _build_efficientdet() -> nn.Module:
    with warnings.catch_warnings():  # it still scripts parts of itself
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from effdet import create_model

        network = create_model(
            "tf_efficientdet_d3",
            bench_task="",
            num_classes=len(CLASS_NAMES),
            pretrained=False,
            pretrained_backbone=False,
        )
    return _Wrapped(network, lambda model, batch: [level for part in model(batch) for level in part])


@cache
def _efficientdet_anchors() -> torch.Tensor:
    from effdet import get_efficientdet_config
    from effdet.anchors import Anchors

    return Anchors.from_config(get_efficientdet_config("tf_efficientdet_d3")).boxes


def _decode_efficientdet(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    from effdet.anchors import decode_box_outputs

    half = len(outputs) // 2
    scores, deltas = (
        torch.cat([level[0].permute(1, 2, 0).reshape(-1, width) for level in part])
        for part, width in ((outputs[:half], len(CLASS_NAMES)), (outputs[half:], 4))
    )
    best, classes = scores.sigmoid().max(dim=1)
    best, index = best.topk(5000)  # as effdet's own max_detection_points
    anchors = _efficientdet_anchors()[index]
    return decode_box_outputs(deltas[index].float(), anchors, output_xyxy=True), best, classes[index]


def _build_detr() -> nn.Module:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # it would ask for a backbone that is not wanted
    from transformers import DetrConfig, DetrForObjectDetection

    settings: dict[str, Any] = {"backbone": "resnet50", "use_timm_backbone": True, "use_pretrained_backbone": False}
    settings["num_labels"] = len(CLASS_NAMES)
    config = DetrConfig(**settings)

    def outputs(model: Any, batch: torch.Tensor) -> Outputs:
        answer = model(pixel_values=batch)
        return answer.logits, answer.pred_boxes

    return _Wrapped(DetrForObjectDetection(config), outputs)


def _decode_detr(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    logits, boxes = outputs
    scores, classes = logits[0].softmax(-1)[:, :-1].max(dim=1)  # the last class is "nothing"
    return box_convert(boxes[0], "cxcywh", "xyxy") * torch.tensor([*size[::-1]] * 2), scores, classes


def _build_yolov3() -> nn.Module:
    from fracture_det.baselines.yolov3_ultralytics import build_network

    return _Wrapped(build_network(len(CLASS_NAMES)), lambda model, batch: [model(batch)[0]])


def _decode_yolov3(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    columns = outputs[0][0].T
    scores, classes = columns[:, 4:].max(dim=1)
    return box_convert(columns[:, :4], "cxcywh", "xyxy"), scores, classes


BASELINES = {
    "yolov3": Baseline("YOLOv3", Letterbox(640), _build_yolov3, _decode_yolov3),
    "efficientdet": Baseline(
        "EfficientDet-D3", Letterbox(896), _build_efficientdet, _decode_efficientdet, IMAGENET_MEAN, IMAGENET_STD
    ),
    "detr": Baseline(
        "DETR-R50", ShortestSide(800), _build_detr, _decode_detr, IMAGENET_MEAN, IMAGENET_STD, transformer=True
    ),
    "torchvision": Baseline(
        "torchvision Faster R-CNN R50-FPN", ShortestSide(800), _build_torchvision, _decode_torchvision
    ),
}
open_yolov3, open_efficientdet, open_detr, open_torchvision = (opener(scheme) for scheme in BASELINES)
