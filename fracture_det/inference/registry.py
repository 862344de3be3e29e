"""Opening a detector by its URI."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fracture_det.calibration.calibration_file import Calibration
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.calibrated import CalibratedDetector

SHIPPED = Path(__file__).parents[2] / "weights" / "shipped"
# The shipped detector in float32 with Detectron2: to train on, to export, for a GPU.
FLOAT = SHIPPED / "float.json"
# scheme -> "module:callable", imported on use, so that a runtime that is not installed costs nothing.
DETECTORS = {
    "d2": "fracture_det.inference.detectron2:D2Detector.open",
    "fused": "fracture_det.inference.ensemble:EnsembleDetector.open",
    "onnx": "fracture_det.inference.onnx:open_onnx",
    "openvino": "fracture_det.inference.openvino:open_openvino",
    "defaultpredictor": "fracture_det.baselines.default_predictor:open_default_predictor",
    "detr": "fracture_det.baselines.detr:open_detr",
    "efficientdet": "fracture_det.baselines.efficientdet:open_efficientdet",
    "torchscript": "fracture_det.inference.torchscript:open_torchscript",
    "torchvision": "fracture_det.baselines.torchvision:open_torchvision",
    "yolov3": "fracture_det.baselines.yolov3:open_yolov3",
}


def open_detector(uri: str, *, calibration: str | Path | None = None, **options: Any) -> Detector:
    """Open the detector that `uri` names: `shipped`, or `scheme:path` such as `d2:output/model_best.pth`.

    calibration: a calibration.json of tools/eval.py; without one, scores are raw. A file beside the weights is never
    taken unasked: operating points, and every evaluation, are on the raw scale, and what a score means must not
    depend on what lies in a folder.
    options: settings of that kind of detector, such as `nms_iou` for `d2`.

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


def _open_raw(uri: str, options: Mapping[str, Any]) -> Detector:
    if uri == "shipped":
        return _open_raw(f"fused:{SHIPPED}", options)
    scheme, colon, target = uri.partition(":")
    if not colon or scheme not in DETECTORS:
        known = ", ".join(["shipped", *(f"{name}:PATH" for name in sorted(DETECTORS))])
        raise DetectorError(f"detector {uri!r}: expected one of {known}")
    module_name, _, attribute = DETECTORS[scheme].partition(":")
    try:
        opener = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _missing(uri, error) from error
    for part in attribute.split("."):
        opener = getattr(opener, part)
    _check_options(uri, opener, options)
    try:
        return opener(target, **options)  # type: ignore[operator]
    except ModuleNotFoundError as error:  # a runtime that is imported only where it is used
        raise _missing(uri, error) from error


def _missing(uri: str, error: ModuleNotFoundError) -> DetectorError:
    return DetectorError(f"detector {uri!r}: needs {error.name}, which is not installed; see README")


def _check_options(uri: str, opener: Any, options: Mapping[str, Any]) -> None:
    """Raise DetectorError for a setting that this kind of detector does not have, such as the NMS of an export."""
    taken = inspect.signature(opener).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values()):
        return  # a fused detector hands them to its members
    for name, value in options.items():
        if name not in taken:
            is_export = uri.partition(":")[0] in ("openvino", "onnx", "torchscript")
            fixed = "; what an export does is fixed in its graph" if is_export else ""
            raise DetectorError(f"detector {uri!r}: has no setting {name}, got {value!r}{fixed}")
