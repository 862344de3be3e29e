"""The paper's rivals behind the Detector protocol, for comparison: each at its own input size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torchvision.ops import batched_nms, box_convert

from fracture_det.detections import Detections
from fracture_det.images import Letterbox, Pixels
from fracture_det.inference.checksums import checked_sha256
from fracture_det.inference.clock import stage
from fracture_det.inference.detector import DetectorError
from fracture_det.inference.letterboxed import on_image
from fracture_det.inference.processors import available_cpus
from fracture_det.inference.runtimes import quiet_openvino

# In place of a file: seeded random weights. Their boxes mean nothing; they are for measuring time.
RANDOM = "random"
SEED = 0
CLASS_NAMES = ("fracture",)
SCORE_FLOOR, NMS_IOU, MAX_BOXES = 0.05, 0.5, 100
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Boxes (N, 4) XYXY in pixels of the square, scores (N,) 0..1, classes (N,) from 0.
Decoded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Outputs = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Rival:
    """How one rival is built, fed and read.

    size_px: side of the square that it takes. build: the network; (1, 3, S, S) float32 to a tuple of tensors.
    decode: from these to boxes. mean, std: what RGB in 0..1 is normalised with.
    """

    title: str
    size_px: int
    build: Callable[[], nn.Module]
    decode: Callable[[Outputs], Decoded]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

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


class RivalDetector:
    """A rival as a Detector; `run` is its network, in whatever runtime."""

    class_names = CLASS_NAMES
    operating_score = 0.5

    def __init__(self, rival: Rival, run: Callable[[NDArray[np.float32]], Outputs], *, name: str) -> None:
        self.rival, self.name, self._run = rival, name, run
        self.letterbox = Letterbox(rival.size_px)
        # One multiplication and one addition per value.
        self._scale = (1 / (255 * np.array(rival.std))).astype(np.float32)
        self._shift = (-np.array(rival.mean) / rival.std).astype(np.float32)

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        return [self._predict(image) for image in images]

    def _predict(self, image: Pixels) -> Detections:
        with stage("preprocess"):
            square = self.letterbox.apply_image(image) * self._scale + self._shift
            batch = np.ascontiguousarray(square.transpose(2, 0, 1)[None])
        with stage("model"):
            outputs = self._run(batch)
        with stage("postprocess"):
            boxes, scores, classes = self.rival.decode(outputs)
            seen = scores >= SCORE_FLOOR
            boxes, scores, classes = boxes[seen], scores[seen], classes[seen]
            kept = batched_nms(boxes, scores, classes, NMS_IOU)[:MAX_BOXES]
            answer = (boxes[kept].numpy(), scores[kept].numpy(), classes[kept].numpy())
            return on_image(*answer, self.letterbox, image.shape[:2])


def opener(scheme: str) -> Callable[[str], RivalDetector]:
    """Return what opens `scheme:TARGET`: RANDOM, a .safetensors file, or an .xml of `export_rival` for OpenVINO."""

    def open_rival(target: str) -> RivalDetector:
        rival = RIVALS[scheme]
        if target.endswith(".xml"):
            return _open_openvino(rival, Path(target))
        network = rival.network(target)
        torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))

        @torch.no_grad()
        def run(batch: NDArray[np.float32]) -> Outputs:
            return network(torch.from_numpy(batch))

        name = "random weights" if target == RANDOM else checked_sha256(Path(target))[:8]
        return RivalDetector(rival, run, name=f"{rival.title} {name}")

    return open_rival


def _open_openvino(rival: Rival, path: Path) -> RivalDetector:
    if not path.is_file():
        raise DetectorError(f"{path}: no such file")
    openvino = quiet_openvino()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": available_cpus(), "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    outputs = range(len(compiled.outputs))

    def run(batch: NDArray[np.float32]) -> Outputs:
        found = compiled([batch])
        return [torch.from_numpy(np.array(found[index])) for index in outputs]

    return RivalDetector(rival, run, name=f"{rival.title} OpenVINO {path.parent.name}")


def export_rival(scheme: str, weights: str, path: Path) -> None:
    """Write a rival's network for OpenVINO to `path`, an .xml, by way of ONNX."""
    rival = RIVALS[scheme]
    network = rival.network(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    between = path.with_suffix(".onnx")
    example = torch.zeros(1, 3, rival.size_px, rival.size_px)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shapes are taken as constants, which they are
        torch.onnx.export(network, (example,), str(between), dynamo=False, opset_version=17)
    openvino = quiet_openvino()
    openvino.save_model(openvino.Core().read_model(between), path, compress_to_fp16=False)
    between.unlink()


class _Wrapped(nn.Module):
    """A network whose answer is made a plain tuple of tensors."""

    def __init__(self, network: Any, outputs: Callable[[Any, torch.Tensor], Outputs]) -> None:
        super().__init__()
        self.network, self._outputs = network, outputs

    def forward(self, batch: torch.Tensor) -> Outputs:
        return tuple(self._outputs(self.network, batch))


def _build_torchvision() -> nn.Module:
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    # It normalises by itself; its own resizing leaves a square of 800 px alone.
    network = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=1 + len(CLASS_NAMES))
    return _Wrapped(network, lambda model, batch: [model([batch[0]])[0][key] for key in ("boxes", "scores", "labels")])


def _decode_torchvision(outputs: Outputs) -> Decoded:
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


def _decode_efficientdet(outputs: Outputs) -> Decoded:
    from effdet import get_efficientdet_config
    from effdet.anchors import Anchors, decode_box_outputs

    half = len(outputs) // 2
    scores, deltas = (
        torch.cat([level[0].permute(1, 2, 0).reshape(-1, width) for level in part])
        for part, width in ((outputs[:half], len(CLASS_NAMES)), (outputs[half:], 4))
    )
    config = get_efficientdet_config("tf_efficientdet_d3")
    best, classes = scores.sigmoid().max(dim=1)
    best, index = best.topk(5000)  # as effdet's own max_detection_points
    anchors = Anchors.from_config(config).boxes[index]
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


def _decode_detr(outputs: Outputs) -> Decoded:
    logits, boxes = outputs
    scores, classes = logits[0].softmax(-1)[:, :-1].max(dim=1)  # the last class is "nothing"
    return box_convert(boxes[0], "cxcywh", "xyxy") * RIVALS["detr"].size_px, scores, classes


def _build_yolov3() -> nn.Module:
    from fracture_det.inference.yolov3 import build_network  # AGPL: no other file imports it

    return _Wrapped(build_network(len(CLASS_NAMES)), lambda model, batch: [model(batch)[0]])


def _decode_yolov3(outputs: Outputs) -> Decoded:
    columns = outputs[0][0].T
    scores, classes = columns[:, 4:].max(dim=1)
    return box_convert(columns[:, :4], "cxcywh", "xyxy"), scores, classes


RIVALS = {
    "yolov3": Rival("YOLOv3", 640, _build_yolov3, _decode_yolov3),
    "efficientdet": Rival(
        "EfficientDet-D3", 896, _build_efficientdet, _decode_efficientdet, IMAGENET_MEAN, IMAGENET_STD
    ),
    "detr": Rival("DETR-R50", 800, _build_detr, _decode_detr, IMAGENET_MEAN, IMAGENET_STD),
    "torchvision": Rival("torchvision Faster R-CNN R50-FPN", 800, _build_torchvision, _decode_torchvision),
}
open_yolov3, open_efficientdet, open_detr, open_torchvision = (opener(scheme) for scheme in RIVALS)
