"""The box that encloses a shape: polygons, ellipses and turned rectangles of annotation tools.

Boxes are x0, y0, x1, y1 and points x, y in pixels, y downwards. What is not finite gives a box that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]
Point = tuple[float, float]
_NOT_FINITE: Box = (math.nan, math.nan, math.nan, math.nan)


def enclosing_box(points: Sequence[Point]) -> Box:
    """Return the smallest box that holds all points, of which there is at least one."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if not all(map(math.isfinite, (*xs, *ys))):
        return _NOT_FINITE
    return min(xs), min(ys), max(xs), max(ys)


def turned_box(box: Box, degrees: float, pivot: Point) -> Box:
    """Return the box that encloses `box` after a turn about `pivot`, clockwise as seen on the screen."""
    if not math.isfinite(degrees):
        return _NOT_FINITE
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x0, y0, x1, y1 = box
    offsets = [(x - pivot[0], y - pivot[1]) for x in (x0, x1) for y in (y0, y1)]
    return enclosing_box([(pivot[0] + x * cosine - y * sine, pivot[1] + x * sine + y * cosine) for x, y in offsets])


def ellipse_box(centre: Point, radii: Point, degrees: float = 0.0) -> Box:
    """Return the box that encloses an ellipse of radii (x, y) after a turn about its centre."""
    if not math.isfinite(degrees):
        return _NOT_FINITE
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width, half_height = (
        math.hypot(radii[0] * cosine, radii[1] * sine),
        math.hypot(radii[0] * sine, radii[1] * cosine),
    )
    return centre[0] - half_width, centre[1] - half_height, centre[0] + half_width, centre[1] + half_height


def centre(box: Box) -> Point:
    """Return the centre of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
