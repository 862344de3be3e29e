"""Bone fracture detection on limb radiographs with Faster R-CNN."""

__version__ = "0.1.0"
