"""Bone fracture detection on limb radiographs with Faster R-CNN."""

import warnings

__version__ = "0.1.0"

# Detectron2 calls functions that PyTorch has since deprecated; nobody who runs a tool can do anything about it.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script", category=FutureWarning)
warnings.filterwarnings("ignore", message=r"torch\.meshgrid: in an upcoming", category=UserWarning)
warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp\.", category=FutureWarning)
# Pillow's own pixel limits warn before ours refuses (structures/radiograph.py), and broken EXIF is no reason to refuse.
warnings.filterwarnings("ignore", message="Image size .* exceeds limit", module="PIL")
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)
# They quote values of files, which may be names; what is wrong with a file is said in an error, without its values.
warnings.filterwarnings("ignore", module=r"pydicom\b")
