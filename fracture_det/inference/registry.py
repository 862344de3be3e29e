"""Opening a detector by its URI."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.calibrated import CalibratedDetector
from fracture_det.resources import how_to_install, resource

# An ensemble of two detectors with test-time augmentation (two orientations each), in INT8 for OpenVINO.
SHIPPED = resource("weights/shipped")
# The shipped detector in float32 with Detectron2: to train on, to export, for a GPU.
FLOAT = SHIPPED / "ensemble_float.json"
# scheme -> "module:callable", imported on use, so that a runtime that is not installed costs nothing.
DETECTORS = {
    "d2": "fracture_det.inference.detectron2:D2Detector.open",
    "ensemble": "fracture_det.inference.ensemble:EnsembleDetector.open",
    "onnx": "fracture_det.inference.onnx:open_onnx",
    "openvino": "fracture_det.inference.openvino:open_openvino",
    "defaultpredictor": "fracture_det.baselines.default_predictor:open_default_predictor",
    "detr": "fracture_det.baselines.detr:open_detr",
    "efficientdet": "fracture_det.baselines.efficientdet:open_efficientdet",
    "registry": "fracture_det.registry.opening:open_registered",
    "torchscript": "fracture_det.inference.torchscript:open_torchscript",
    "torchvision": "fracture_det.baselines.torchvision:open_torchvision",
    "yolov3": "fracture_det.baselines.yolov3:open_yolov3",
}
# Those that open a training folder.
TRAINED = ("d2", "detr", "efficientdet", "yolov3")
# Why an export does not take `nms_iou`, and what does.
EXPORTS = ("onnx", "openvino", "torchscript")
NMS_IN_GRAPH = "an exported graph holds its non-maximum suppression, with the IoU of its source"
TAKE_NMS_IOU = "detectors that take it: d2:PATH, and ensemble:PATH where all members are d2:"
# Former schemes -> their present names.
RENAMED = {"fused": "ensemble"}

log = logging.getLogger(__name__)


def open_detector(uri: str, *, calibration: str | Path | None = None, **options: Any) -> Detector:
    """Open the detector that `uri` names: `shipped`, or `scheme:path` such as `d2:output/model_best.pth`.

    calibration: a calibration.json of tools/eval.py; without one, scores are raw. A file beside the weights is never
    used implicitly: operating points, and every evaluation, are on the raw scale, and what a score means must not
    depend on what lies in a folder.
    options: settings of that kind of detector, such as `nms_iou` of `d2`; an ensemble hands them to all members.

    Raises DetectorError for an unknown scheme, a missing file, weights that were never trained, a broken file, or a
    calibration that was fitted for another detector.
    """
    if calibration is None:
        return _open_raw(uri, options)
    try:
        loaded = Calibration.load(calibration)  # before the model, which takes longer
    except CalibrationError as error:
        raise DetectorError(f"calibration {error}") from error
    raw = _open_raw(uri, options)
    try:
        return CalibratedDetector(raw, loaded)
    except CalibrationError as error:
        raise DetectorError(f"detector {uri!r}: calibration {calibration} does not fit it: {error}") from error


def scheme_and_target(uri: str) -> tuple[str, str]:
    """Return the scheme of a detector's URI and what follows the colon; an empty scheme where there is no colon.

    `shipped` is an ensemble. A former scheme is returned under its new name, with a warning in the log.
    """
    if uri == "shipped":
        return "ensemble", str(SHIPPED)
    scheme, colon, target = uri.partition(":")
    if not colon:
        return "", uri
    if scheme in RENAMED:
        log.warning("detector %s: the scheme %s: is deprecated; write %s:", uri, scheme, RENAMED[scheme])
    return RENAMED.get(scheme, scheme), target


def _open_raw(uri: str, options: Mapping[str, Any]) -> Detector:
    scheme, target = scheme_and_target(uri)
    if scheme not in DETECTORS:
        known = ", ".join(["shipped", *(f"{name}:PATH" for name in sorted(DETECTORS))])
        raise DetectorError(f"detector {uri!r}: expected one of {known}")
    module_name, _, attribute = DETECTORS[scheme].partition(":")
    try:
        opener: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            opener = getattr(opener, part)
        _check_options(uri, opener, options)
        detector: Detector = opener(target, **options)  # it may import a runtime only now
    except ModuleNotFoundError as error:
        raise DetectorError(f"detector {uri!r}: {how_to_install(error.name or str(error))}") from error
    return detector


def _check_options(uri: str, opener: Any, options: Mapping[str, Any]) -> None:
    """Raise DetectorError for a setting that this kind of detector does not have, such as the NMS of an export."""
    taken = inspect.signature(opener).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values()):
        return  # an ensemble hands them to its members
    for name, value in options.items():
        if name not in taken:
            reasons = [NMS_IN_GRAPH] if name == "nms_iou" and uri.partition(":")[0] in EXPORTS else []
            reasons += [TAKE_NMS_IOU] if name == "nms_iou" else []
            raise DetectorError("; ".join([f"detector {uri!r}: has no setting {name}, got {value!r}", *reasons]))
