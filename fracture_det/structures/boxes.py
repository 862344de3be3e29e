"""Geometry of boxes x0 y0 x1 y1: area, intersection over union, matching, centre, rotation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def box_area(boxes: ArrayLike) -> NDArray[np.float64]:
    """Return the areas (N,) in square pixels of boxes (N, 4) x0 y0 x1 y1."""
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return (array[:, 2] - array[:, 0]) * (array[:, 3] - array[:, 1])


def box_iou(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return the intersection over union (N, M) of boxes (N, 4) with others (M, 4), both x0 y0 x1 y1.

    Widths are x1 - x0 (continuous coordinates, as in pycocotools). Two boxes without area have IoU 0.
    """
    intersection = _intersection(boxes, others)
    union = box_area(boxes)[:, None] + box_area(others)[None, :] - intersection
    iou: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return iou


def match_boxes(boxes: ArrayLike, others: ArrayLike, *, iou: float) -> list[tuple[int, int]]:
    """Return index pairs of boxes (N, 4) and others (M, 4) with at least this IoU, one to one, as many as possible.

    A maximum matching by augmenting paths (Berge 1957, PNAS 43, 842-844); each box tries its best others first, which
    decides where several matchings are as large.
    """
    overlap = box_iou(boxes, others)
    taken: dict[int, int] = {}  # other -> box

    def place(box: int, tried: set[int]) -> bool:
        for other in map(int, np.argsort(-overlap[box], kind="stable")):
            if overlap[box, other] < iou:
                return False
            if other in tried:
                continue
            tried.add(other)
            if other not in taken or place(taken[other], tried):
                taken[other] = box
                return True
        return False

    for box in range(len(overlap)):
        place(box, set())
    return sorted((box, other) for other, box in taken.items())


def box_share_inside(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return the share (N, M) of the area of boxes (N, 4) that lies inside others (M, 4), both x0 y0 x1 y1.

    This is what pycocotools takes for the IoU with a crowd region. A box without area has 0.
    """
    intersection = _intersection(boxes, others)
    area = np.broadcast_to(box_area(boxes)[:, None], intersection.shape)
    share: NDArray[np.float64] = np.divide(intersection, area, out=np.zeros_like(intersection), where=area > 0)
    return share


def _intersection(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    a = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def centre_inside(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.bool_]:
    """Return (N, M): whether the centre of boxes (N, 4) lies in others (M, 4) or on their edge, all x0 y0 x1 y1."""
    a = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    centre = (a[..., :2] + a[..., 2:]) / 2
    return np.asarray(((b[..., :2] <= centre) & (centre <= b[..., 2:])).all(-1))


def around_rotated(box: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """Return the upright box around the corners of one box x0 y0 x1 y1, rotated about its centre."""
    x, y, half_width, half_height = (
        (box[0] + box[2]) / 2,
        (box[1] + box[3]) / 2,
        (box[2] - box[0]) / 2,
        (box[3] - box[1]) / 2,
    )
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    reach_x, reach_y = half_width * cos + half_height * sin, half_width * sin + half_height * cos
    return x - reach_x, y - reach_y, x + reach_x, y + reach_y


def rotate_boxes(boxes: ArrayLike, radians: float, centres: ArrayLike) -> NDArray[np.float64]:
    """Return the upright boxes (N, 4) around the ellipses inscribed in boxes (N, 4), rotated to lie at centres (N, 2).

    An ellipse of half axes a (x) and b (y) rotated by t reaches hypot(a cos t, b sin t) in x and hypot(a sin t,
    b cos t) in y. A lesion fills its box as an ellipse rather than to the corners, and the upright box around the
    rotated corners is up to twice as large; of all shapes in the box the ellipse errs least (Kalra et al., ICCV 2021,
    section 4.1).
    """
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    middle = np.asarray(centres, dtype=np.float64).reshape(-1, 2)
    a, b = (array[:, 2:] - array[:, :2]).T / 2
    cos, sin = math.cos(radians), math.sin(radians)
    reach = np.stack([np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos)], axis=1)
    return np.concatenate([middle - reach, middle + reach], axis=1)
