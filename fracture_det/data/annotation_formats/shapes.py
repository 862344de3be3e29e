"""The boxes of other shapes: polygons, ellipses and rotated rectangles of annotation tools.

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


def rotated_about_corner(box: Box, degrees: float) -> Box:
    """Return the box, of the same sides, that gives by rotation about its centre what `box` does about its corner.

    The corner is x0, y0, and the rotation clockwise as seen on the screen.
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x0, y0, x1, y1 = box
    half_width, half_height = (x1 - x0) / 2, (y1 - y0) / 2
    x, y = x0 + half_width * cosine - half_height * sine, y0 + half_width * sine + half_height * cosine
    return x - half_width, y - half_height, x + half_width, y + half_height


def ellipse_box(centre: Point, radii: Point, degrees: float = 0.0) -> Box:
    """Return the box that encloses an ellipse of radii (x, y), rotated about its centre."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width = math.hypot(radii[0] * cosine, radii[1] * sine)
    half_height = math.hypot(radii[0] * sine, radii[1] * cosine)
    return centre[0] - half_width, centre[1] - half_height, centre[0] + half_width, centre[1] + half_height
