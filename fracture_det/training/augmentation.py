"""Random changes of a training image and its boxes."""

from __future__ import annotations

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from fvcore.transforms.transform import Transform

from fracture_det.structures.boxes import rotate_boxes
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.orientations import orient_image


class LetterboxTransform(Transform):
    """Detectron2's form of `Letterbox` for an image of `size` (height, width)."""

    def __init__(self, letterbox: Letterbox, size: tuple[int, int]) -> None:
        super().__init__()
        self.letterbox = letterbox
        self.size = size

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return the letterboxed image."""
        return self.letterbox.apply_image(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map points (N, 2) x y."""
        return self.letterbox.apply_boxes(np.tile(coords, 2), self.size)[:, :2]


class RandomLetterbox(T.Augmentation):
    """Letterbox to `size` times a factor drawn from `scale` (low, high); `step` as in Letterbox."""

    def __init__(self, size: int, scale: tuple[float, float] = (1.0, 1.0), step: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.scale = scale
        self.step = step

    def get_transform(self, image: np.ndarray) -> LetterboxTransform:
        """Return the transform for this (H, W, 3) image."""
        size = round(self.size * np.random.uniform(*self.scale))
        return LetterboxTransform(Letterbox(size, self.step), image.shape[:2])


class TransposeTransform(Transform):
    """Exchange rows and columns: with the flips, every right-angled orientation of a limb."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return the (W, H, 3) image."""
        return orient_image(img, "transpose")

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map points (N, 2) x y."""
        return coords[:, ::-1]


class BBoxSafeRandomCrop(T.Augmentation):
    """A random crop that never cuts a box: its window grows until each box lies wholly inside or wholly outside.

    A cut box would either teach a wrong outline or, dropped, a visible fracture as background. The window's size is
    drawn as Detectron2's INPUT.CROP.TYPE and SIZE say; with the chance `around_box` it is laid around one of the boxes.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float], around_box: float = 0.0) -> None:
        super().__init__()
        self.window = T.RandomCrop(crop_type, crop_size)
        self.around_box = around_box

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> Transform:
        """Return the crop for this (H, W, 3) image with boxes (M, 4) x0 y0 x1 y1."""
        sides = np.array(self.window.get_crop_size(image.shape[:2]))[::-1]  # width, height
        limit = np.array(image.shape[1::-1])
        sides = np.minimum(sides, limit)
        low, high = np.zeros(2), limit - sides
        if len(boxes) and np.random.random() < self.around_box:
            box = boxes[np.random.randint(len(boxes))]
            low = np.clip(np.minimum(box[:2], box[2:] - sides), 0, high)
            high = np.clip(np.maximum(box[:2], box[2:] - sides), 0, high)
        start = np.floor(np.random.uniform(low, high + 1e-9)).astype(int)
        x0, y0, x1, y1 = grow_to_whole_boxes((*start, *(start + sides)), boxes, (int(limit[1]), int(limit[0])))
        return T.CropTransform(x0, y0, x1 - x0, y1 - y0)


def grow_to_whole_boxes(window: Sequence[float], boxes: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the smallest whole-pixel window around `window` x0 y0 x1 y1 that cuts none of `boxes` (M, 4).

    size: (height, width) of the image, which the window never leaves.
    """
    grown = np.array(window, dtype=np.float64)
    while True:
        touches = (boxes[:, :2] < grown[2:]).all(1) & (boxes[:, 2:] > grown[:2]).all(1)
        wider = grown.copy()
        if touches.any():
            wider[:2] = np.minimum(grown[:2], np.floor(boxes[touches, :2].min(0)))
            wider[2:] = np.maximum(grown[2:], np.ceil(boxes[touches, 2:].max(0)))
        wider = np.clip(wider, 0, [size[1], size[0]] * 2)
        if (wider == grown).all():
            x0, y0, x1, y1 = (int(value) for value in grown)
            return x0, y0, x1, y1
        grown = wider


class RotateTransform(T.RotationTransform):
    """Turn an image of (h, w) by `angle` degrees; it grows so that no corner is lost, zeros fill the rest.

    Boxes are those of the rotated ellipses (`rotate_boxes`): the frame of the rotated corners would be a third too
    large at 10 degrees and teach loose boxes.
    """

    def __init__(self, h: int, w: int, angle: float) -> None:
        super().__init__(h, w, angle, expand=True)
        self.radians = np.deg2rad(angle)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Return boxes (N, 4) x0 y0 x1 y1."""
        box = np.asarray(box, dtype=np.float64).reshape(-1, 4)
        return rotate_boxes(box, self.radians, self.apply_coords((box[:, :2] + box[:, 2:]) / 2))


class RandomRotation(T.Augmentation):
    """Turn by an angle drawn from -`degrees` to `degrees`."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def get_transform(self, image: np.ndarray) -> RotateTransform:
        """Return the transform for this (H, W, 3) image."""
        height, width = image.shape[:2]
        return RotateTransform(height, width, np.random.uniform(-self.degrees, self.degrees))


class RandomGamma(T.Augmentation):
    """Raise the grey value (0..1) to a power drawn from (low, high), evenly on a log scale: the window of a viewer."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.limits = np.log([low, high])

    def get_transform(self, image: np.ndarray) -> T.ColorTransform:
        """Return the transform for this (H, W, 3) uint8 image."""
        table = (np.linspace(0, 1, 256) ** np.exp(np.random.uniform(*self.limits)) * 255).round().astype(np.uint8)
        return T.ColorTransform(lambda pixels: table[pixels])


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Return the training augmentations that the INPUT keys ask for, in the order in which they are applied."""
    inputs = cfg.INPUT
    augmentations: list[T.Augmentation] = [RandomRotation(inputs.TILT)] if inputs.TILT else []
    augmentations.append(RandomLetterbox(inputs.LETTERBOX, tuple(inputs.SCALE)))
    if inputs.CROP.ENABLED:
        augmentations.append(BBoxSafeRandomCrop(inputs.CROP.TYPE, inputs.CROP.SIZE, inputs.CROP.AROUND_BOX))
    if inputs.RANDOM_FLIP == "horizontal":
        augmentations.append(T.RandomFlip(horizontal=True, vertical=False))
    if inputs.VERTICAL_FLIP:
        augmentations.append(T.RandomFlip(prob=inputs.VERTICAL_FLIP, horizontal=False, vertical=True))
    if inputs.TRANSPOSE:
        augmentations.append(T.RandomApply(TransposeTransform(), prob=inputs.TRANSPOSE))
    if tuple(inputs.GAMMA) != (1.0, 1.0):
        augmentations.append(RandomGamma(*inputs.GAMMA))
    if tuple(inputs.BRIGHTNESS) != (1.0, 1.0):
        augmentations.append(T.RandomBrightness(*inputs.BRIGHTNESS))
    if tuple(inputs.CONTRAST) != (1.0, 1.0):
        augmentations.append(T.RandomContrast(*inputs.CONTRAST))
    return augmentations
