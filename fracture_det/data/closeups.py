"""Close-ups cut out of whole radiographs: what a detector sees of a collimated film, from films that have none."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.radiograph import read_radiograph

# Sides of a window around a fracture as multiples of its longer side, and of one on a healthy film as shares of the
# film's width; each side is then drawn from the second pair of that.
AROUND_BOX, OF_FILM, SIDES = (1.6, 5.0), (0.22, 0.6), (0.7, 1.2)
SMALLEST_PX = 96
LONGEST_PX, JPEG_QUALITY = 900, 92
TRIES = 30
# A healthy window must be mostly limb: this share of it brighter than the film's 60th percentile.
BRIGHT_PERCENTILE, BRIGHT_SHARE = 60, 0.5


@dataclass(frozen=True)
class Window:
    """A window of an image, x0 y0 x1 y1 in whole pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


def cut_closeups(
    dataset: Dataset,
    images: Path,
    out: Path,
    *,
    per_fracture: int = 2,
    seed: int = 0,
    progress: Callable[[Iterable[ImageRecord]], Iterable[ImageRecord]] = iter,
) -> Dataset:
    """Cut close-ups, write them to `out` as grey JPEGs, and return them as a data set with the groups of their films.

    Of a fractured film `per_fracture` windows around one of its boxes, none of which is cut; of a healthy one a window
    that is mostly limb, if there is one. Windows are drawn from `seed` and the film's name. Longer sides than 900 px
    are made smaller. Films with crowd regions are left out. progress: wraps the stream of films.
    Raises ValueError for a name that leads out of its folder, UnreadableImage for a film that cannot be read.
    """
    for record in dataset:
        if not (out / record.file_name).resolve().is_relative_to(out.resolve()):
            raise ValueError(f"file_name {record.file_name!r} leads out of the image folder")
    records: list[ImageRecord] = []
    for record in progress(dataset):
        if len(record.crowd_boxes):
            continue
        rng = np.random.default_rng((seed, zlib.crc32(record.file_name.encode("utf-8", "surrogateescape"))))
        grey = read_radiograph(images / record.file_name).pixels[:, :, 1]
        for number, window in enumerate(_windows(grey, record.boxes, per_fracture, rng)):
            name = f"{record.file_name}_{number}.jpg"  # with its suffix, since hand.png is another film than hand.jpg
            boxes, size = _write(grey, window, record.boxes, out / name)
            inside = _inside(record.boxes, window)
            records.append(
                replace(
                    record,
                    image_id=len(records) + 1,
                    file_name=name,
                    height=size[0],
                    width=size[1],
                    boxes=boxes,
                    classes=record.classes[inside],
                    types=tuple(kind for kind, shown in zip(record.types, inside, strict=True) if shown),
                )
            )
    return Dataset(tuple(records), dataset.class_names)


def _windows(
    grey: NDArray[np.uint8], boxes: NDArray[np.float64], per_fracture: int, rng: np.random.Generator
) -> Iterator[Window]:
    if not len(boxes):
        window = _healthy_window(grey, rng)
        if window is not None:
            yield window
        return
    for _ in range(per_fracture):
        box = boxes[rng.integers(len(boxes))]
        for _ in range(TRIES):
            window = _window_around(box, grey.shape[:2], rng)
            if not (_touched(boxes, window) & ~_inside(boxes, window)).any():
                yield window
                break


def _window_around(box: NDArray[np.float64], size: tuple[int, int], rng: np.random.Generator) -> Window:
    """Return a window with the whole box in it, at a random place."""
    longer = max(box[2] - box[0], box[3] - box[1], SMALLEST_PX / AROUND_BOX[0])
    side = longer * rng.uniform(*AROUND_BOX)
    sides = np.array([max(side * rng.uniform(*SIDES), extent) for extent in (box[2] - box[0], box[3] - box[1])])
    limits = np.array(size[::-1])
    sides = np.minimum(np.ceil(sides), limits)
    low = np.clip(box[2:] - sides, 0, limits - sides)
    high = np.clip(box[:2], low, limits - sides)
    x0, y0 = np.floor(rng.uniform(np.ceil(low), np.maximum(np.ceil(low), high))).astype(int)
    return Window(int(x0), int(y0), int(x0 + sides[0]), int(y0 + sides[1]))


def _healthy_window(grey: NDArray[np.uint8], rng: np.random.Generator) -> Window | None:
    height, width = grey.shape
    bright = np.percentile(grey, BRIGHT_PERCENTILE)
    best_share, best = BRIGHT_SHARE, None
    for _ in range(TRIES):
        sides = [min(limit, round(width * rng.uniform(*OF_FILM) * rng.uniform(*SIDES))) for limit in (width, height)]
        if min(sides) < SMALLEST_PX:
            continue
        x0, y0 = (int(rng.integers(limit - side + 1)) for limit, side in zip((width, height), sides, strict=True))
        part = grey[y0 : y0 + sides[1] : 4, x0 : x0 + sides[0] : 4]
        share = float((part > bright).mean())
        if share > best_share:
            best_share, best = share, Window(x0, y0, x0 + sides[0], y0 + sides[1])
    return best


def _inside(boxes: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
    low, high = np.array([window.x0, window.y0]), np.array([window.x1, window.y1])
    return np.asarray((boxes[:, :2] >= low).all(1) & (boxes[:, 2:] <= high).all(1))


def _touched(boxes: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
    touched: NDArray[np.bool_] = (
        (boxes[:, 0] < window.x1) & (boxes[:, 2] > window.x0) & (boxes[:, 1] < window.y1) & (boxes[:, 3] > window.y0)
    )
    return touched


def _write(
    grey: NDArray[np.uint8], window: Window, boxes: NDArray[np.float64], path: Path
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Write the window; return the boxes inside of it in its pixels, and its (height, width)."""
    part: NDArray[Any] = grey[window.y0 : window.y1, window.x0 : window.x1]
    scale = min(1.0, LONGEST_PX / max(part.shape))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    path.write_bytes(encoded.tobytes())
    factors = np.array([part.shape[1] / (window.x1 - window.x0), part.shape[0] / (window.y1 - window.y0)])
    inside = boxes[_inside(boxes, window)]
    return (inside - [window.x0, window.y0] * 2) * np.tile(factors, 2), (part.shape[0], part.shape[1])
