"""A trained detector as one graph, letterbox in and boxes out: TorchScript, ONNX, OpenVINO."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
import torchvision
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.structures import ImageList, Instances
from torch import nn

from fracture_det.calibration.calibration import Calibration
from fracture_det.export.proposals import propose
from fracture_det.export.verify import Agreement, compare
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.detectron2 import D2Detector
from fracture_det.inference.exported import FACTS_KEY, GraphFacts
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.inference.registry import open_detector
from fracture_det.structures.radiograph import read_radiograph

# What --to may name besides safetensors, and the files that it writes; the first is what is opened.
FORMATS = {
    "openvino": ("model.xml", "model.bin"),
    "onnx": ("model.onnx",),
    "torchscript": ("model.pt",),
}
OUTPUTS = ("boxes", "scores", "classes", "image")
# The last that torch's tracing exporter, on which Detectron2's adapter stands, knows in full.
ONNX_OPSET = 17


class DetectorGraph(nn.Module):
    """From letterboxed images to answers, with normalisation, box decoding and NMS inside.

    Input (N, H, W, 3) uint8 RGB, any letterbox of the detector's. Output: boxes (M, 4) float32 XYXY in letterbox px,
    scores (M,) float32 0..1, classes (M,) int64, image (M,) int64: which of the N a box is on.
    """

    def __init__(self, detector: D2Detector) -> None:
        super().__init__()
        self.model: Any = detector.predictor.model
        self.bgr = detector.predictor.input_format == "BGR"
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (boxes, scores, classes, image)."""
        found = self._detect(images.permute(0, 3, 1, 2).float())
        image = [torch.full_like(one.pred_classes, index) for index, one in enumerate(found)]
        columns = (
            [one.pred_boxes.tensor for one in found],
            [one.scores for one in found],
            [one.pred_classes for one in found],
            image,
        )
        return tuple(torch.cat(column) for column in columns)

    def _detect(self, planes: torch.Tensor) -> list[Instances]:
        """As GeneralizedRCNN.inference, without its copy of each image into a batch, which ONNX cannot follow."""
        normed = ((planes.flip(1) if self.bgr else planes) - self.model.pixel_mean) / self.model.pixel_std
        images = ImageList(normed, [(normed.shape[2], normed.shape[3])] * normed.shape[0])
        features = self.model.backbone(images.tensor)
        proposals = propose(self.model.proposal_generator, images, features)
        found, _ = self.model.roi_heads(images, features, proposals, None)
        return found


def export_graph(
    target: str,
    to: str,
    out: Path,
    check_images: Sequence[Path],
    *,
    batch_size: int = 1,
    half: bool = False,
    calibration: Calibration | None = None,
) -> Agreement:
    """Write the detector in `target` (a folder or file) to the folder `out` in one of FORMATS; return how both agree.

    batch_size: images per call of the graph. half: OpenVINO stores weights in half precision; it computes in float32.
    calibration: of the source, for the file's metadata.
    Raises ExportError when the export does not find on `check_images` what its source finds (see `compare`), and
    DetectorError when `target` is not a trained detector.
    """
    source = D2Detector.open(target)
    facts = facts_of(source, batch_size=batch_size, calibration=calibration)
    example = torch.from_numpy(_example(source, check_images, batch_size))
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in FORMATS[to]]
    writer = partial(write_openvino, half=True) if half else WRITERS[to]
    writer(DetectorGraph(source), example, facts, paths[0])
    write_checksums(*paths)
    return compare(source, open_detector(f"{to}:{paths[0]}"), check_images)


def facts_of(source: D2Detector, *, batch_size: int = 1, calibration: Calibration | None = None) -> GraphFacts:
    """Return what an export of `source` must say of itself."""
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
    )


def _example(source: D2Detector, images: Sequence[Path], batch_size: int) -> np.ndarray:
    """Return (N, S, S, 3) uint8 with a real radiograph, so that tracing sees boxes all the way.

    The square is the largest letterbox, in which every step that an export takes by the size of its input is worth it.
    """
    square = np.zeros((source.predictor.letterbox.size, source.predictor.letterbox.size, 3), np.uint8)
    if images:
        source.predictor.letterbox.apply_image(read_radiograph(images[0]).pixels, out=square)
    return np.repeat(square[None], batch_size, axis=0)


def _batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """As torchvision's, which asks whether there are boxes; here the answer to none is none without a branch.

    Boxes of each of `idxs` are moved to a place of their own, so that they do not suppress those of another.
    """
    furthest = torch.cat([boxes, boxes.new_zeros((1, 4))]).max()
    offsets = idxs.to(boxes) * (furthest + 1)
    return torchvision.ops.nms(boxes + offsets[:, None], scores, iou_threshold)


@contextmanager
def _tracing() -> Any:
    """Trace as Detectron2 needs it, without the warnings of what is taken as constant; sizes of the input are not."""
    nms = patch.object(torchvision.ops.boxes, "_batched_nms_coordinate_trick", _batched_nms)
    with torch.no_grad(), patch_builtin_len(), nms, warnings.catch_warnings():
        for category in (torch.jit.TracerWarning, DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


def write_torchscript(graph: DetectorGraph, example: torch.Tensor, facts: GraphFacts, path: Path) -> None:
    """Write a .pt file that torch.jit.load reads."""
    with _tracing():
        torch.jit.trace(graph, example, check_trace=False).save(str(path), _extra_files={FACTS_KEY: facts.to_json()})


def write_onnx(graph: DetectorGraph, example: torch.Tensor, facts: GraphFacts, path: Path) -> None:
    """Write an .onnx file whose metadata say what it is."""
    with _tracing():
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            dynamo=False,  # the other exporter cannot follow Detectron2's data-dependent shapes
            opset_version=ONNX_OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS),
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
        between = Path(folder) / "model.onnx"
        write_onnx(graph, example, facts, between)
        model = openvino.Core().read_model(between)
        save_openvino(model, facts, path, half=half)


def save_openvino(model: Any, facts: GraphFacts, path: Path, *, half: bool = False) -> None:
    """Write an OpenVINO model with its facts; with `half`, float weights are stored in half precision."""
    model.set_rt_info(facts.to_json(), [FACTS_KEY])
    quiet_openvino().save_model(model, path, compress_to_fp16=half)


WRITERS = {"openvino": write_openvino, "onnx": write_onnx, "torchscript": write_torchscript}
