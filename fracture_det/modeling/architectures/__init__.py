"""The paper's other detectors as meta architectures of Detectron2: YOLOv3, EfficientDet, DETR."""
