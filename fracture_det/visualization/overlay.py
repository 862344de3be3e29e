"""Numbered boxes on a radiograph, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels

# Okabe and Ito (2008), distinct for colour-blind readers; amber first: it is visible on bone and on black.
BOX_COLOURS = ((255, 176, 0), (86, 180, 233), (0, 190, 130), (240, 228, 66), (204, 121, 167), (213, 94, 0))
# Sizes as shares of the longer side, so that an overlay fitted to a screen looks the same at 300 px and at 3000 px.
FONT_SHARE, LINE_SHARE = 0.018, 0.0028
MIN_FONT_PX, MIN_LINE_PX = 12, 2
MAX_TAG_SHARE = 0.2
Rectangle = tuple[int, int, int, int]


def draw_overlay(
    pixels: Pixels,
    detections: Detections,
    class_names: Sequence[str],
    *,
    minimum_score: float = 0.0,
    caption: str | None = None,
) -> Image.Image:
    """Return the radiograph (H, W, 3) uint8 RGB with a numbered box, a label and a score for each detection.

    Number n is the n-th highest score, whatever `minimum_score` (0..1) leaves out. `pixels` is not changed.
    caption: what must be seen wherever the picture goes, in a band on its upper edge.
    """
    image = Image.fromarray(pixels).copy()
    shown = detections.above(minimum_score)
    draw = ImageDraw.Draw(image)
    side = max(image.size)
    line = max(MIN_LINE_PX, round(side * LINE_SHARE))
    font = ImageFont.load_default(max(MIN_FONT_PX, round(side * FONT_SHARE)))
    frames = [_frame(box, image.size, line) for box in shown.boxes]
    for index in reversed(range(len(shown))):  # the highest score lies on top
        _draw_frame(draw, frames[index], _colour(shown, index), line)
    taken: list[Rectangle] = []
    for index, frame in enumerate(frames):
        text = _tag_text(draw, font, index, shown, class_names, image.width)
        taken.append(_draw_tag(draw, font, text, frame, _colour(shown, index), line, (frames, taken, image.size)))
    if caption:
        _draw_caption(draw, caption, image.width, line)
    return image


def _draw_caption(draw: ImageDraw.ImageDraw, caption: str, width: int, line: int) -> None:
    """Write a line of white on black, as large as fits into the picture's width, over what is on its upper edge."""
    room = width - 4 * line
    font = ImageFont.load_default(MIN_FONT_PX)
    font = ImageFont.load_default(max(6.0, min(24.0, MIN_FONT_PX * room / draw.textlength(caption, font=font))))
    _, top, _, bottom = draw.textbbox((0, 0), caption, font=font)
    draw.rectangle((0, 0, width, bottom - top + 4 * line), fill=(0, 0, 0))
    draw.text((2 * line, 2 * line - top), caption, fill=(255, 255, 255), font=font)


def _colour(detections: Detections, index: int) -> tuple[int, int, int]:
    return BOX_COLOURS[int(detections.classes[index]) % len(BOX_COLOURS)]


def _frame(box: Iterable[float], size: tuple[int, int], line: int) -> Rectangle:
    """Return the outer corners of the line around a box: outside it, so that the line does not cover the fracture."""
    x0, y0, x1, y1 = (float(value) for value in box)
    width, height = size
    left = min(max(math.floor(x0) - line, 0), width - 1)
    top = min(max(math.floor(y0) - line, 0), height - 1)
    return left, top, max(left, min(math.ceil(x1) + line, width) - 1), max(top, min(math.ceil(y1) + line, height) - 1)


def _draw_frame(draw: ImageDraw.ImageDraw, frame: Rectangle, colour: tuple[int, int, int], line: int) -> None:
    halo = max(1, line // 2)
    left, top, right, bottom = frame
    draw.rectangle((left - halo, top - halo, right + halo, bottom + halo), outline=(0, 0, 0), width=halo)
    draw.rectangle(frame, outline=colour, width=line)


def _tag_text(
    draw: ImageDraw.ImageDraw,
    font: Any,
    index: int,
    detections: Detections,
    class_names: Sequence[str],
    image_width: int,
) -> str:
    score = f"{float(detections.scores[index]):.2f}"
    full = f"{index + 1}  {class_names[int(detections.classes[index])]} {score}"
    return full if draw.textlength(full, font=font) <= MAX_TAG_SHARE * image_width else f"{index + 1}  {score}"


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    font: Any,
    text: str,
    frame: Rectangle,
    colour: tuple[int, int, int],
    line: int,
    around: tuple[list[Rectangle], list[Rectangle], tuple[int, int]],
) -> Rectangle:
    frames, taken, size = around
    ascent, descent = font.getmetrics()
    width, height = round(draw.textlength(text, font=font)) + 4 * line, ascent + descent + 2 * line
    near, far = _tag_places(frame, (width, height), size)
    # Worst is a tag on another tag, which cannot be read, then one far from its box, then one that covers a box.
    place = min(
        near + far,
        key=lambda p: (sum(_overlap(p, t) for t in taken), p not in near, sum(_overlap(p, f) for f in frames)),
    )
    draw.rectangle(place, fill=colour, outline=(0, 0, 0), width=max(1, line // 2))
    draw.text((place[0] + 2 * line, place[1] + line), text, fill=(0, 0, 0), font=font)
    return place


def _tag_places(
    frame: Rectangle, tag: tuple[int, int], size: tuple[int, int]
) -> tuple[list[Rectangle], list[Rectangle]]:
    """Return the possible places of a tag, moved into the image, best first: at its box, and one or two tags away."""
    left, top, right, bottom = frame
    width, height = tag
    near = [(left, top - height), (left, bottom), (right - width, top - height), (right - width, bottom)]
    near += [(right, top), (left - width, top), (right, bottom - height), (left - width, bottom - height)]
    ends = [(top - height, top - 2 * height), (bottom, bottom + height)]
    far = [(x, y) for step in (0, 1) for x in (right, left - width) for y in (ends[0][step], ends[1][step])]

    def inside(corner: tuple[int, int]) -> Rectangle:
        x, y = (max(0, min(corner[axis], size[axis] - tag[axis])) for axis in (0, 1))
        return x, y, x + width - 1, y + height - 1

    return [inside(corner) for corner in near], [inside(corner) for corner in far]


def _overlap(a: Rectangle, b: Rectangle) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)
