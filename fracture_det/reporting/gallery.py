"""Pictures of false positives, false negatives and true positives: a crop of each, and one sheet per kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.report import FALSE_POSITIVE, HIT, MISS, GalleryItem
from fracture_det.structures.radiograph import Pixels, read_radiograph
from fracture_det.visualization.overlay import BOX_COLOURS

FOLDER = "gallery"
DETECTION_COLOUR, TRUTH_COLOUR = BOX_COLOURS[0], BOX_COLOURS[1]
# A crop shows at least this field around a box: twice its longer side, a quarter of the radiograph's, 160 px.
CONTEXT, LEAST_SHARE, LEAST_FIELD_PX = 2.0, 0.25, 160
CROP_PX = 360
LINE_PX, DASH_PX = 3, 9
# A sheet: tiles of 280 px in rows of four, to fit a printed page and Markdown.
COLUMNS, TILE_PX, GAP_PX, FONT_PX = 4, 280, 12, 14
PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
JPEG = {"quality": 88, "subsampling": 0}
Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]


class GalleryError(ValueError):
    """A picture of the gallery cannot be drawn; the message names the file."""


def crop_path(item: GalleryItem) -> str:
    """Return the path of an item's crop relative to the report's folder."""
    return f"{FOLDER}/{_dashed(item.kind)}-{item.rank:02d}.jpg"


def sheet_path(kind: str) -> str:
    """Return the path of a kind's sheet relative to the report's folder."""
    return f"{FOLDER}/sheet-{_dashed(kind)}.jpg"


def _dashed(kind: str) -> str:
    return kind.replace(" ", "-")


def draw_gallery(
    items: Sequence[GalleryItem], dataset: Dataset, images_dir: str | Path, folder: str | Path
) -> list[Path]:
    """Save a JPEG crop of each item and a sheet of each kind in `folder`/gallery, and return their paths.

    The box of an item has a solid line, amber for a detection and blue for a missed truth box; the truth boxes of
    `dataset` in view are dashed blue. The same input gives the same bytes with one version of Pillow. Sheets and crops
    of an earlier run are removed.

    Raises UnreadableImage, or GalleryError for an image that the data set does not know or whose size is another.
    """
    crops = list(zip(items, _crops(items, dataset, Path(images_dir)), strict=True))
    pictures = {crop_path(item): crop for item, crop in crops}
    for kind in dict.fromkeys(item.kind for item in items):
        pictures[sheet_path(kind)] = _sheet([(item, crop) for item, crop in crops if item.kind == kind])
    target = Path(folder) / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    _remove_earlier(target)
    for name, picture in pictures.items():
        picture.save(Path(folder) / name, format="JPEG", **JPEG)
    return [Path(folder) / name for name in pictures]


def _remove_earlier(target: Path) -> None:
    for kind in map(_dashed, (FALSE_POSITIVE, MISS, HIT)):
        for old in [*target.glob(f"{kind}-[0-9][0-9].jpg"), *target.glob(f"sheet-{kind}.jpg")]:
            old.unlink()


def _crops(items: Sequence[GalleryItem], dataset: Dataset, images_dir: Path) -> list[Image.Image]:
    """Return the crop of each item; each radiograph is read once, and only one is in memory."""
    records = {record.file_name: record for record in dataset}
    crops: dict[int, Image.Image] = {}
    for file_name in sorted({item.file_name for item in items}):
        if file_name not in records:
            raise GalleryError(f"{file_name}: not in the data set")
        record, path = records[file_name], images_dir / file_name
        radiograph = read_radiograph(path)
        if radiograph.size != record.size:
            raise GalleryError(f"{path}: expected (height, width) {record.size}, got {radiograph.size}")
        crops |= {
            n: _crop(item, record, radiograph.pixels) for n, item in enumerate(items) if item.file_name == file_name
        }
    return [crops[number] for number in range(len(items))]


def field_of(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part x0 y0 x1 y1 of an image of `size` (height, width) that shows a box with its surroundings.

    A square about the box's centre, moved into the image; smaller only where the image is.
    """
    height, width = size
    x0, y0, x1, y1 = box
    side = max(CONTEXT * max(x1 - x0, y1 - y0), LEAST_SHARE * max(size), LEAST_FIELD_PX)
    wide, high = min(math.ceil(side), width), min(math.ceil(side), height)
    left = min(max(round((x0 + x1 - wide) / 2), 0), width - wide)
    top = min(max(round((y0 + y1 - high) / 2), 0), height - high)
    return left, top, left + wide, top + high


def _crop(item: GalleryItem, record: ImageRecord, pixels: Pixels) -> Image.Image:
    left, top, right, bottom = field = field_of(item.box, record.size)
    scale = CROP_PX / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    crop = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=field)
    height, width = record.size
    drawn = np.clip(np.vstack([record.boxes, item.box]), 0, (width, height, width, height))
    frames = [_frame(box, size) for box in ((drawn - (left, top, left, top)) * scale).tolist()]
    _draw_frames(ImageDraw.Draw(crop), frames[-1:], _colour(item.kind), frames[:-1])
    return crop


def _colour(kind: str) -> Colour:
    return TRUTH_COLOUR if kind == MISS else DETECTION_COLOUR


def _frame(box: Sequence[float], size: tuple[int, int]) -> Rectangle:
    """Return the outer corners of the line around a box: outside it, so that the line does not cover the fracture.

    An edge that is in view stays in view; one beyond the crop stays beyond it.
    """
    low = [math.floor(value) - LINE_PX for value in box[:2]]
    high = [math.ceil(value) + LINE_PX - 1 for value in box[2:]]
    left, top = (max(edge, 0) if value >= 0 else edge for edge, value in zip(low, box[:2], strict=True))
    right, bottom = (
        min(edge, end - 1) if value <= end else edge for edge, value, end in zip(high, box[2:], size, strict=True)
    )
    return left, top, max(left, right), max(top, bottom)


def _draw_frames(
    draw: ImageDraw.ImageDraw, own: Sequence[Rectangle], colour: Colour, truth: Sequence[Rectangle]
) -> None:
    """Draw an item's own box solid, and truth boxes dashed and last, so that the gaps show what is beneath."""
    for left, top, right, bottom in (*truth, *own):
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=LINE_PX + 2)
    for frame in own:
        draw.rectangle(frame, outline=colour, width=LINE_PX)
    for frame in truth:
        _draw_dashes(draw, frame)


def _draw_dashes(draw: ImageDraw.ImageDraw, frame: Rectangle) -> None:
    left, top, right, bottom = frame
    thick = LINE_PX - 1
    for start in range(left, right + 1, 2 * DASH_PX):
        end = min(start + DASH_PX - 1, right)
        draw.rectangle((start, top, end, top + thick), fill=TRUTH_COLOUR)
        draw.rectangle((start, bottom - thick, end, bottom), fill=TRUTH_COLOUR)
    for start in range(top, bottom + 1, 2 * DASH_PX):
        end = min(start + DASH_PX - 1, bottom)
        draw.rectangle((left, start, left + thick, end), fill=TRUTH_COLOUR)
        draw.rectangle((right - thick, start, right, end), fill=TRUTH_COLOUR)


def _sheet(chosen: Sequence[tuple[GalleryItem, Image.Image]]) -> Image.Image:
    """Return all crops of one kind in rows of four, each with its rank, anatomy, score and file name."""
    font: Any = ImageFont.load_default(FONT_PX)
    line_px = sum(font.getmetrics()) + 2
    cell = TILE_PX + GAP_PX, TILE_PX + 2 * line_px + GAP_PX
    columns, rows = min(COLUMNS, len(chosen)), math.ceil(len(chosen) / COLUMNS)
    sheet = Image.new("RGB", (columns * cell[0] + GAP_PX, rows * cell[1] + line_px + 2 * GAP_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (item, crop) in enumerate(chosen):
        left = GAP_PX + number % COLUMNS * cell[0]
        top = GAP_PX + number // COLUMNS * cell[1]
        sheet.paste(_tile(crop), (left, top))
        draw.text((left, top + TILE_PX + 1), _caption(item), fill=INK, font=font)
        draw.text((left, top + TILE_PX + 1 + line_px), _fitted(item.file_name, font), fill=FAINT, font=font)
    _draw_legend(draw, chosen[0][0].kind, (GAP_PX, sheet.height - line_px - GAP_PX // 2), font)
    return sheet


def _tile(crop: Image.Image) -> Image.Image:
    scale = TILE_PX / CROP_PX
    size = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    small = crop.resize(size, Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE_PX, TILE_PX), (0, 0, 0))
    tile.paste(small, ((TILE_PX - small.width) // 2, (TILE_PX - small.height) // 2))
    return tile


def _caption(item: GalleryItem) -> str:
    parts = [str(item.rank), item.anatomy or "body part unknown"]
    return "   ".join(parts if item.score is None else [*parts, f"score {item.score:.2f}"])


def _fitted(text: str, font: Any) -> str:
    """Return a text that fits a tile; a long one is cut to its end, where file names differ."""
    if font.getlength(text) <= TILE_PX:
        return text
    start = next(n for n in range(1, len(text) + 1) if font.getlength("..." + text[n:]) <= TILE_PX)
    return "..." + text[start:]


def _draw_legend(draw: ImageDraw.ImageDraw, kind: str, corner: tuple[int, int], font: Any) -> None:
    x, y = corner
    middle = y + sum(font.getmetrics()) // 2
    own, other = ("missed fracture", "other fracture") if kind == MISS else ("predicted box", "annotated fracture")
    for text, is_own in ((own, True), (other, False)):
        frame = (x, middle - 6, x + 27, middle + 5)
        _draw_frames(draw, [frame] if is_own else [], _colour(kind), [] if is_own else [frame])
        draw.text((x + 36, y), text, fill=INK, font=font)
        x += 36 + math.ceil(font.getlength(text)) + 3 * GAP_PX
