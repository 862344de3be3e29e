"""Opening a baseline that `tools/train_net.py` has trained, by the scheme of the baseline."""

from __future__ import annotations

from pathlib import Path

from fracture_det.inference.base import DetectorError
from fracture_det.inference.detectron2 import CONFIG_FILE, D2Detector


def is_trained(target: str) -> bool:
    """Return whether `target`, what follows the colon of a URI, is a training folder or a file of one."""
    path = Path(target)
    return path.is_dir() or (path.parent / CONFIG_FILE).is_file()


def open_trained(target: str, *, scheme: str, architecture: str, nms_iou: float | None = None) -> D2Detector:
    """Open a training folder, or one weight file with its config.yaml beside it, as `d2:` does.

    architecture: the MODEL.META_ARCHITECTURE that it must have. Raises DetectorError as `d2:` does, and for another
    architecture.
    """
    try:
        detector = D2Detector.open(target, nms_iou=nms_iou)
    except DetectorError as error:
        raise DetectorError(str(error).replace(f"d2:{target}", f"{scheme}:{target}")) from error
    found = detector.predictor.cfg.MODEL.META_ARCHITECTURE
    if found != architecture:
        raise DetectorError(
            f"detector {scheme}:{target}: its {CONFIG_FILE} says MODEL.META_ARCHITECTURE {found}, expected "
            f"{architecture}; d2:{target} opens any training folder"
        )
    return detector


def refuse_nms_iou(scheme: str, target: str, nms_iou: float | None) -> None:
    """Raise DetectorError for an `nms_iou` of what is no training folder: its suppression is fixed."""
    if nms_iou is not None:
        raise DetectorError(f"detector {scheme}:{target}: has no setting nms_iou, got {nms_iou!r}; training folders do")
