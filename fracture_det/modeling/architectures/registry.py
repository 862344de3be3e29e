"""The architectures by the name that MODEL.META_ARCHITECTURE selects them by."""

from __future__ import annotations

from importlib.util import find_spec

from detectron2.modeling import META_ARCH_REGISTRY

from fracture_det.modeling.architectures.detr import DETR
from fracture_det.modeling.architectures.efficientdet import EfficientDet
from fracture_det.modeling.architectures.yolov3 import YOLOv3

ARCHITECTURES = (EfficientDet, YOLOv3, DETR)
# Name -> the package that has its network; they are imported when one is built.
PACKAGES = {"EfficientDet": "effdet", "DETR": "transformers"}


def register_architectures() -> None:
    """Register the architectures with Detectron2; calling it again changes nothing."""
    for architecture in ARCHITECTURES:
        if architecture.__name__ not in META_ARCH_REGISTRY:
            META_ARCH_REGISTRY.register(architecture)


def missing_package(name: str) -> str | None:
    """Return the package that MODEL.META_ARCHITECTURE `name` needs and that is not installed, or None."""
    package = PACKAGES.get(name)
    return package if package is not None and find_spec(package) is None else None
