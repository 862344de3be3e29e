"""What happens to radiographs on their way to a detector, at five strengths each; the truth boxes move with the image.

What is random (noise, a direction, whether at all) is seeded with the image's name, so that runs agree and an image
gets the same draw at every strength.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from fracture_det.structures.boxes import rotate_boxes
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.radiograph import Pixels

STRENGTHS = (1, 2, 3, 4, 5)
# A box that keeps less than this share of its area no longer shows its lesion.
MIN_KEPT_AREA = 0.5
# The longer side that a blur's width is stated for, so that it is alike on small and large images.
REFERENCE_SIDE_PX = 800
Boxes = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PerturbedTruth:
    """The truth of a perturbed image.

    size: (height, width) of the perturbed image. boxes: (K, 4) float64 x0 y0 x1 y1 in its pixels.
    kept: (M,) bool, which of the M boxes these are; the others lost more than half of their area.
    """

    size: Size
    boxes: Boxes
    kept: NDArray[np.bool_]


def _stay(boxes: Boxes, size: Size, setting: float, rng: np.random.Generator) -> tuple[Boxes, Size]:
    return boxes, size


@dataclass(frozen=True)
class Perturbation:
    """One kind of change.

    settings: what strengths 1 to 5 mean, as numbers; text: the same in words, with `{}` for the number.
    alter: (pixels, setting, rng) -> pixels. move: (boxes, size, setting, rng) -> (boxes, size), not yet clipped.
    """

    settings: tuple[float, float, float, float, float]
    text: str
    alter: Callable[[Pixels, float, np.random.Generator], Pixels]
    move: Callable[[Boxes, Size, float, np.random.Generator], tuple[Boxes, Size]] = _stay

    def setting(self, strength: int) -> str:
        """Return what a strength (1 to 5) means, such as "quality 30"."""
        return self.text.format(f"{self.settings[strength - 1]:g}")


def perturb_pixels(pixels: Pixels, perturbation: str, strength: int, *, file_name: str) -> Pixels:
    """Return an image (H, W, 3) uint8 RGB changed by one of PERTURBATIONS; strength 0 changes nothing.

    file_name: decides what is drawn at random. Raises ValueError for an unknown perturbation or strength.
    """
    kind = _find(perturbation, strength)
    if strength == 0:
        return pixels
    return kind.alter(pixels, kind.settings[strength - 1], _generator(perturbation, file_name))


def perturb_truth(boxes: ArrayLike, size: Size, perturbation: str, strength: int, *, file_name: str) -> PerturbedTruth:
    """Return boxes (M, 4) x0 y0 x1 y1 of an image of `size` (h, w) where `perturb_pixels` puts them, clipped to it.

    Raises ValueError for an unknown perturbation or strength.
    """
    kind = _find(perturbation, strength)
    given = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if strength == 0:
        return PerturbedTruth(size, given, np.ones(len(given), dtype=bool))
    moved, frame = kind.move(given, size, kind.settings[strength - 1], _generator(perturbation, file_name))
    clipped = np.clip(moved, 0, [frame[1], frame[0]] * 2)
    kept = _areas(clipped) >= MIN_KEPT_AREA * _areas(moved)
    return PerturbedTruth(frame, clipped[kept], kept)


def _areas(boxes: Boxes) -> Boxes:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _find(perturbation: str, strength: int) -> Perturbation:
    if perturbation not in PERTURBATIONS:
        raise ValueError(f"perturbation: expected one of {', '.join(PERTURBATIONS)}, got {perturbation!r}")
    if strength not in (0, *STRENGTHS):
        raise ValueError(f"strength: expected 0 (untouched) to {STRENGTHS[-1]}, got {strength!r}")
    return PERTURBATIONS[perturbation]


def _generator(perturbation: str, file_name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{perturbation}\n{file_name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _jpeg(pixels: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(quality))
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


def _noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Add the same normal noise to the three channels: a radiograph is grey."""
    noise = sigma * rng.standard_normal(pixels.shape[:2])
    return np.clip(pixels + noise[:, :, None] + 0.5, 0, 255).astype(np.uint8)


def _gamma(pixels: Pixels, gamma: float, rng: np.random.Generator) -> Pixels:
    """Darken (gamma) or lighten (1 / gamma) the middle greys; black and white stay."""
    exponent = gamma if rng.random() < 0.5 else 1 / gamma
    table = 255 * (np.arange(256) / 255) ** exponent + 0.5
    return table.astype(np.uint8)[pixels]


def _inversion(pixels: Pixels, percent: float, rng: np.random.Generator) -> Pixels:
    """Invert the grey values, or leave the image as it is."""
    return 255 - pixels if 100 * rng.random() < percent else pixels


def _blur(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    sigma_px = sigma * max(pixels.shape[:2]) / REFERENCE_SIDE_PX
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_px), dtype=np.uint8)


def _shrink(pixels: Pixels, side_px: float, rng: np.random.Generator) -> Pixels:
    """Return a smaller image; one that is small enough stays as it is."""
    if max(pixels.shape[:2]) <= side_px:
        return pixels
    height, width = Letterbox(int(side_px)).inner_size(pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _shrink_boxes(boxes: Boxes, size: Size, side_px: float, rng: np.random.Generator) -> tuple[Boxes, Size]:
    if max(size) <= side_px:
        return boxes, size
    letterbox = Letterbox(int(side_px))
    return letterbox.apply_boxes(boxes, size), letterbox.inner_size(size)


@dataclass(frozen=True)
class _Turn:
    """A rotation about the middle of an image of `size` into the smallest frame that cuts nothing off."""

    radians: float
    size: Size

    @classmethod
    def drawn(cls, size: Size, degrees: float, rng: np.random.Generator) -> _Turn:
        return cls(math.radians(degrees) * (1 if rng.random() < 0.5 else -1), size)

    @property
    def cos(self) -> float:
        return math.cos(self.radians)

    @property
    def sin(self) -> float:
        return math.sin(self.radians)

    @property
    def frame(self) -> Size:
        height, width = self.size
        return (
            math.ceil(height * self.cos + width * abs(self.sin) - 1e-9),
            math.ceil(width * self.cos + height * abs(self.sin) - 1e-9),
        )

    def points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points (N, 2) x y of the image lie in the frame."""
        x, y = points[:, 0] - self.size[1] / 2, points[:, 1] - self.size[0] / 2
        turned = np.stack([self.cos * x - self.sin * y, self.sin * x + self.cos * y], axis=1)
        return turned + np.array(self.frame[::-1]) / 2


def _rotate(pixels: Pixels, degrees: float, rng: np.random.Generator) -> Pixels:
    """Rotate one way or the other; the frame grows, its new corners are black."""
    turn = _Turn.drawn(pixels.shape[:2], degrees, rng)
    # OpenCV counts from the middle of the first pixel, boxes from its corner.
    corners = np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])
    matrix = cv2.getAffineTransform((corners - 0.5).astype(np.float32), (turn.points(corners) - 0.5).astype(np.float32))
    return np.asarray(cv2.warpAffine(pixels, matrix, turn.frame[::-1], flags=cv2.INTER_CUBIC), dtype=np.uint8)


def _rotate_boxes(boxes: Boxes, size: Size, degrees: float, rng: np.random.Generator) -> tuple[Boxes, Size]:
    turn = _Turn.drawn(size, degrees, rng)
    return rotate_boxes(boxes, turn.radians, turn.points((boxes[:, :2] + boxes[:, 2:]) / 2)), turn.frame


def _margins(size: Size, percent: float) -> tuple[int, int]:
    """Return how many pixels (rows, columns) are cut from each side."""
    return round(size[0] * percent / 100), round(size[1] * percent / 100)


def _crop(pixels: Pixels, percent: float, rng: np.random.Generator) -> Pixels:
    rows, columns = _margins(pixels.shape[:2], percent)
    return np.array(pixels[rows : pixels.shape[0] - rows, columns : pixels.shape[1] - columns])


def _crop_boxes(boxes: Boxes, size: Size, percent: float, rng: np.random.Generator) -> tuple[Boxes, Size]:
    rows, columns = _margins(size, percent)
    return boxes - [columns, rows, columns, rows], (size[0] - 2 * rows, size[1] - 2 * columns)


# At strength 5 a person can still make out the bones, but hardly a fine fracture line (checked at 454 px).
# jpeg: saved again with that quality. noise: normal, of 255 grey levels. gamma: darker or lighter, at random.
# inversion: the share of the images that are inverted. blur: Gaussian, for an image whose longer side is 800 px.
# resize: the longer side, as messengers and screenshots shrink it. rotation: left or right, at random. crop: cut from
# each side.
PERTURBATIONS = {
    "jpeg": Perturbation((75, 50, 35, 25, 15), "quality {}", _jpeg),
    "noise": Perturbation((3, 6, 10, 15, 20), "sigma {} of 255", _noise),
    "gamma": Perturbation((1.15, 1.3, 1.5, 1.8, 2.2), "{0} or 1/{0}", _gamma),
    "inversion": Perturbation((20, 40, 60, 80, 100), "{} % of images", _inversion),
    "blur": Perturbation((0.5, 1, 1.5, 2, 3), "sigma {} px at 800 px", _blur),
    "resize": Perturbation((400, 320, 256, 200, 160), "at most {} px", _shrink, _shrink_boxes),
    "rotation": Perturbation((5, 10, 20, 30, 45), "{} degrees either way", _rotate, _rotate_boxes),
    "crop": Perturbation((3, 6, 10, 15, 20), "{} % of each side", _crop, _crop_boxes),
}
