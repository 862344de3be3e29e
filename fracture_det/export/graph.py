"""Export of a trained detector as one graph, from letterboxed images to boxes: TorchScript, ONNX, OpenVINO."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
import torchvision
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.structures import ImageList, Instances
from torch import nn

from fracture_det.calibration.calibration import Calibration
from fracture_det.export.proposals import predict_proposals
from fracture_det.export.verify import ComparisonResult, compare_detectors
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.detectron2 import D2Detector
from fracture_det.inference.exported import FACTS_KEY, GraphFacts
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.inference.registry import open_detector
from fracture_det.modeling.architectures.base import Architecture
from fracture_det.structures.radiograph import read_radiograph

# Values of --to besides safetensors, and the files that they write; the first is the one to open.
FORMATS = {
    "openvino": ("model.xml", "model.bin"),
    "onnx": ("model.onnx",),
    "torchscript": ("model.pt",),
}
OUTPUTS = ("boxes", "scores", "classes", "image")
# A further output where the detector tells types of fracture.
TYPES_OUTPUT = "types"
# The latest that torch's tracing exporter supports completely.
ONNX_OPSET = 17


class DetectorGraph(nn.Module):
    """From letterboxed images to detections, with normalisation, box decoding and NMS inside.

    Input (N, H, W, 3) uint8 RGB, of any size that the detector's letterbox gives. Output: boxes (M, 4) float32 XYXY in
    letterbox px, scores (M,) float32 0..1, classes (M,) int64, image (M,) int64: which of the N a box is on; and where
    the detector tells types of fracture, types (M, T) float32. outputs: their names.
    """

    def __init__(self, detector: D2Detector) -> None:
        super().__init__()
        self.model: Any = detector.predictor.model
        self.bgr = detector.predictor.input_format == "BGR"
        self.outputs = (*OUTPUTS, TYPES_OUTPUT) if detector.info.type_names else OUTPUTS
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (boxes, scores, classes, image), and types where there are some."""
        per_image = self._detect(images.permute(0, 3, 1, 2).float())
        columns = [
            [instances.pred_boxes.tensor for instances in per_image],
            [instances.scores for instances in per_image],
            [instances.pred_classes for instances in per_image],
            [torch.full_like(instances.pred_classes, index) for index, instances in enumerate(per_image)],
        ]
        if TYPES_OUTPUT in self.outputs:
            columns.append([instances.pred_types for instances in per_image])
        return tuple(torch.cat(column) for column in columns)

    def _detect(self, planes: torch.Tensor) -> list[Instances]:
        """Do what GeneralizedRCNN.inference does, without its copy of each image into a batch, which ONNX lacks."""
        normed = ((planes.flip(1) if self.bgr else planes) - self.model.pixel_mean) / self.model.pixel_std
        images = ImageList(normed, [(normed.shape[2], normed.shape[3])] * normed.shape[0])
        if isinstance(self.model, Architecture):
            return self.model.detect(normed)
        features = self.model.backbone(images.tensor)
        proposals = predict_proposals(self.model.proposal_generator, images, features)
        instances, _ = self.model.roi_heads(images, features, proposals, None)
        return instances


def export_graph(
    target: str,
    to: str,
    out: Path,
    check_images: Sequence[Path],
    *,
    batch_size: int = 1,
    half: bool = False,
    calibration: Calibration | None = None,
) -> ComparisonResult:
    """Write the detector in `target` (a folder or file) to folder `out` in one of FORMATS; return how well they agree.

    batch_size: images per call of the graph. half: OpenVINO stores weights in half precision; it computes in float32.
    calibration: of the source, for the file's metadata.
    Raises ExportError when export and source disagree on `check_images` (see `compare_detectors`), and DetectorError
    when `target` is not a trained detector.
    """
    source = D2Detector.open(target)
    facts = facts_of(source, batch_size=batch_size, calibration=calibration)
    example = torch.from_numpy(_example_batch(source, check_images, batch_size))
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in FORMATS[to]]
    writer = partial(write_openvino, half=True) if half else WRITERS[to]
    writer(DetectorGraph(source), example, facts, paths[0])
    write_checksums(*paths)
    return compare_detectors(source, open_detector(f"{to}:{paths[0]}"), check_images)


def facts_of(source: D2Detector, *, batch_size: int = 1, calibration: Calibration | None = None) -> GraphFacts:
    """Return the metadata of an export of `source`."""
    cfg = source.predictor.cfg
    return GraphFacts(
        title=source.title,
        class_names=source.info.class_names,
        letterbox_px=source.predictor.letterbox.size,
        batch_size=batch_size,
        operating_score=source.info.score_threshold,
        precision="fp32",
        source_sha256=source.sha256,
        about={
            "colour": f"RGB in, {source.predictor.input_format} inside",
            "pixel mean": str(cfg.MODEL.PIXEL_MEAN),
            "pixel std": str(cfg.MODEL.PIXEL_STD),
            "NMS IoU": f"{cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST:g}",
            "score floor": f"{cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST:g}",
        },
        calibration=None if calibration is None else calibration.as_dict(),
        letterbox_step=source.predictor.letterbox.step,
        type_names=source.info.type_names,
    )


def _example_batch(source: D2Detector, images: Sequence[Path], batch_size: int) -> np.ndarray:
    """Return (N, S, S, 3) uint8 with a radiograph of `images`, so that no step of the tracing is without boxes.

    The square is the largest letterbox: lengths that tracing takes from its example (`grouped_topk`) suit it best.
    """
    square = np.zeros((source.predictor.letterbox.size, source.predictor.letterbox.size, 3), np.uint8)
    if images:
        source.predictor.letterbox.apply_image(read_radiograph(images[0]).pixels, out=square)
    return np.repeat(square[None], batch_size, axis=0)


def _batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Do what torchvision's `_batched_nms_coordinate_trick` does, without its branch for no boxes, which is not traced.

    Boxes of each class in `idxs` are shifted to a region of their own, so that they do not suppress those of another.
    """
    furthest = torch.cat([boxes, boxes.new_zeros((1, 4))]).max()
    offsets = idxs.to(boxes) * (furthest + 1)
    return torchvision.ops.nms(boxes + offsets[:, None], scores, iou_threshold)


@contextmanager
def _traceable_nms() -> Iterator[None]:
    """Let Detectron2's and torchvision's batched NMS call `_batched_nms` until the block ends."""
    original = torchvision.ops.boxes._batched_nms_coordinate_trick
    torchvision.ops.boxes._batched_nms_coordinate_trick = _batched_nms
    try:
        yield
    finally:
        torchvision.ops.boxes._batched_nms_coordinate_trick = original


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace as Detectron2's code requires, without warnings of what is traced as a constant, as intended."""
    with torch.no_grad(), patch_builtin_len(), _traceable_nms(), warnings.catch_warnings():
        for category in (torch.jit.TracerWarning, DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


def write_torchscript(graph: DetectorGraph, example: torch.Tensor, facts: GraphFacts, path: Path) -> None:
    """Write a .pt file that torch.jit.load reads."""
    with _tracing():
        torch.jit.trace(graph, example, check_trace=False).save(str(path), _extra_files={FACTS_KEY: facts.to_json()})


def write_onnx(graph: DetectorGraph, example: torch.Tensor, facts: GraphFacts, path: Path) -> None:
    """Write an .onnx file with `facts` in its metadata."""
    with _tracing():
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            dynamo=False,  # the newer exporter does not support Detectron2's data-dependent shapes
            opset_version=ONNX_OPSET,
            input_names=["images"],
            output_names=list(graph.outputs),
            dynamic_axes={"images": {1: "height", 2: "width"}},
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {FACTS_KEY: facts.to_json()})
    onnx.save(model, path)


def write_openvino(
    graph: DetectorGraph, example: torch.Tensor, facts: GraphFacts, path: Path, *, half: bool = False
) -> None:
    """Write .xml and .bin, by way of ONNX: OpenVINO reads that without its converter, which reports to a server."""
    openvino = quiet_openvino()
    with TemporaryDirectory() as folder:
        onnx_path = Path(folder) / "model.onnx"
        write_onnx(graph, example, facts, onnx_path)
        model = openvino.Core().read_model(onnx_path)
        save_openvino(model, facts, path, half=half)


def save_openvino(model: Any, facts: GraphFacts, path: Path, *, half: bool = False) -> None:
    """Write an OpenVINO model with its facts; with `half`, float weights are stored in half precision."""
    model.set_rt_info(facts.to_json(), [FACTS_KEY])
    quiet_openvino().save_model(model, path, compress_to_fp16=half)


WRITERS = {"openvino": write_openvino, "onnx": write_onnx, "torchscript": write_torchscript}
