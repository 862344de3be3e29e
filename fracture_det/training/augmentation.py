"""Random changes of a training image and its boxes.

To add one: write its class below (`get_transform` draws the random numbers and returns a Transform), declare its key
in add_fracture_config (fracture_det/modeling/config.py), and add a line to AUGMENTATIONS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from fvcore.transforms.transform import Transform

from fracture_det.structures.boxes import rotate_boxes
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.orientations import orient_image

# Every training augmentation, in the order in which they are applied: from the configuration's INPUT keys to the
# augmentation, or None where its key switches it off.
AUGMENTATIONS: tuple[Callable[[CfgNode], T.Augmentation | None], ...] = (
    lambda keys: RandomRotation(keys.ROTATION) if keys.ROTATION else None,
    lambda keys: RandomLetterbox(keys.LETTERBOX, tuple(keys.SCALE)),
    lambda keys: (
        BBoxSafeRandomCrop(keys.CROP.TYPE, keys.CROP.SIZE, keys.CROP.AROUND_BOX) if keys.CROP.ENABLED else None
    ),
    lambda keys: T.RandomFlip(horizontal=True, vertical=False) if keys.RANDOM_FLIP == "horizontal" else None,
    lambda keys: T.RandomFlip(keys.VERTICAL_FLIP, horizontal=False, vertical=True) if keys.VERTICAL_FLIP else None,
    lambda keys: T.RandomApply(TransposeTransform(), keys.TRANSPOSE) if keys.TRANSPOSE else None,
    lambda keys: RandomGamma(*keys.GAMMA) if tuple(keys.GAMMA) != (1.0, 1.0) else None,
    lambda keys: T.RandomBrightness(*keys.BRIGHTNESS) if tuple(keys.BRIGHTNESS) != (1.0, 1.0) else None,
    lambda keys: T.RandomContrast(*keys.CONTRAST) if tuple(keys.CONTRAST) != (1.0, 1.0) else None,
    lambda keys: RandomDegradation(keys.DEGRADATION) if keys.DEGRADATION else None,
)


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Return the training augmentations that the INPUT keys of `cfg` switch on, in the order of AUGMENTATIONS."""
    augmentations = (build(cfg.INPUT) for build in AUGMENTATIONS)
    return [augmentation for augmentation in augmentations if augmentation is not None]


class LetterboxTransform(Transform):
    """`Letterbox` as a Detectron2 transform, for an image of `size` (height, width)."""

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
    """Letterbox to `size` px times a factor drawn from `scale` (low, high); `step` as in Letterbox."""

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
    drawn as for Detectron2's INPUT.CROP.TYPE and SIZE; with probability `around_box` it is placed around one of the
    boxes.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float], around_box: float = 0.0) -> None:
        super().__init__()
        self.window = T.RandomCrop(crop_type, crop_size)
        self.around_box = around_box

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> Transform:
        """Return the crop for this (H, W, 3) image with boxes (M, 4) x0 y0 x1 y1."""
        image_sides = np.array(image.shape[1::-1])  # width, height
        sides = np.minimum(np.array(self.window.get_crop_size(image.shape[:2]))[::-1], image_sides)
        low, high = np.zeros(2), image_sides - sides
        if len(boxes) and np.random.random() < self.around_box:
            box = boxes[np.random.randint(len(boxes))]
            low = np.clip(np.minimum(box[:2], box[2:] - sides), 0, high)
            high = np.clip(np.maximum(box[:2], box[2:] - sides), 0, high)
        start = np.floor(np.random.uniform(low, high + 1e-9)).astype(int)
        x0, y0, x1, y1 = grow_to_whole_boxes((*start, *(start + sides)), boxes, image.shape[:2])
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
    """Rotate an image of (h, w) by `angle` degrees; it grows so that no corner is lost, padded with zeros.

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
    """Rotate by an angle drawn from -`degrees` to `degrees`."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def get_transform(self, image: np.ndarray) -> RotateTransform:
        """Return the transform for this (H, W, 3) image."""
        height, width = image.shape[:2]
        return RotateTransform(height, width, np.random.uniform(-self.degrees, self.degrees))


class RandomGamma(T.Augmentation):
    """Raise grey values (0..1) to a power drawn log-uniformly from (low, high), as a viewer's window does."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.limits = np.log([low, high])

    def get_transform(self, image: np.ndarray) -> T.ColorTransform:
        """Return the transform for this (H, W, 3) uint8 image."""
        table = (np.linspace(0, 1, 256) ** np.exp(np.random.uniform(*self.limits)) * 255).round().astype(np.uint8)
        return T.ColorTransform(lambda pixels: table[pixels])


class RandomDegradation(T.Augmentation):
    """Degrade an image as radiographs are on their way to an upload, each step with `probability`.

    CLAHE (clip limit 1 to 4), lower resolution (down to a third), Gaussian blur (sigma 0.3 to 1.5 px), JPEG (quality 25
    to 90) and, with a third of the probability, inverted grey values; in this order. The result is grey.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def get_transform(self, image: np.ndarray) -> T.ColorTransform:
        """Return the transform for this (H, W, 3) uint8 image."""
        weights = np.array([1, 1, 1, 1, 1 / 3])
        resize, blur, compress, equalize, invert = np.random.random(5) < self.probability * weights
        factor, sigma = np.random.uniform(1, 3), np.random.uniform(0.3, 1.5)
        quality, clip_limit = np.random.randint(25, 91), np.random.uniform(1, 4)

        def degrade(pixels: np.ndarray) -> np.ndarray:
            height, width = pixels.shape[:2]
            grey = np.ascontiguousarray(pixels[:, :, 0])
            if equalize:
                grey = cv2.createCLAHE(clip_limit, (8, 8)).apply(grey)
            if resize:
                small = (max(1, round(width / factor)), max(1, round(height / factor)))
                grey = cv2.resize(cv2.resize(grey, small, interpolation=cv2.INTER_AREA), (width, height))
            if blur:
                grey = cv2.GaussianBlur(grey, (0, 0), sigma)
            if compress:
                _, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
                grey = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))
            if invert:
                grey = 255 - grey
            return np.repeat(grey[:, :, None], 3, axis=2)

        return T.ColorTransform(degrade)
