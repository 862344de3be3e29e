"""Synthetic limb radiographs with LabelImg XML beside them: small, believable, and learnable in minutes.

    truth = build_dataset(tmp_path, n_fractured=20, n_healthy=20, seed=1)

writes tmp_path/images/*.png|jpg, tmp_path/annotations/*.xml and tmp_path/metadata.csv.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.sax.saxutils import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.data.records import Dataset, ImageRecord

Floats = NDArray[np.float64]
ANATOMIES = ("wrist", "hand", "elbow", "shoulder", "lower limb")
IMAGES_PER_PATIENT = 2


def draw_radiograph(
    rng: np.random.Generator, *, fractured: bool, size: tuple[int, int] = (320, 256)
) -> tuple[NDArray[np.uint8], Floats]:
    """Draw one limb: soft tissue, one or two long bones with a bright cortex, noise and, if asked, fractures.

    A fracture is a dark, jagged line across a bone whose far part is displaced; its box encloses line and step.
    Returns pixels (H, W, 3) uint8 RGB of `size` (height, width) and boxes (M, 4) float64 x0 y0 x1 y1 in whole
    pixels; M is 0 for a healthy limb and 1 or 2 for a fractured one.
    """
    height, width = size
    unit = min(size) / 256
    along, across, to_image = _limb_frame(rng, size)
    image = np.full(size, rng.uniform(8, 25))
    tissue = unit * rng.uniform(75, 95) * (1 + 0.1 * np.sin(along / (unit * 90) + rng.uniform(0, 6)))
    image += rng.uniform(55, 75) * _soft_step(tissue - np.abs(across), 6 * unit)

    n_bones = int(rng.integers(1, 3))
    offsets = np.array([0.0]) if n_bones == 1 else np.array([-1.0, 1.0]) * rng.uniform(32, 40)
    broken = set(rng.permutation(n_bones)[: 1 + int(rng.random() < 0.25)].tolist()) if fractured else set()
    boxes = []
    for bone in range(n_bones):
        half_width = unit * (rng.uniform(15, 24) if n_bones == 1 else rng.uniform(11, 16))
        middle = unit * offsets[bone]
        if bone in broken:
            break_at = unit * rng.uniform(-70, 70)
            tilt, step = rng.uniform(-0.6, 0.6), unit * rng.choice([-1, 1]) * rng.uniform(3, 7)
            jag = _jagged(rng, across - middle, unit) + tilt * (across - middle) + break_at
            image += _bone(along, across - middle - np.where(along > jag, step, 0.0), half_width, unit)
            inside = np.abs(across - middle) < half_width + abs(step)
            gap = np.exp(-(((along - jag) / (unit * rng.uniform(2.0, 3.2))) ** 2)) * inside
            image -= gap * (image - 45) * 0.85
            boxes.append(_box_of(to_image, break_at, middle, half_width + abs(step), abs(tilt), unit))
        else:
            image += _bone(along, across - middle, half_width, unit)
    image = cv2.GaussianBlur(image, (0, 0), 0.7 * unit) * rng.uniform(0.85, 1.1) + rng.normal(0, 4.0, size)
    grey = np.clip(image, 0, 255).astype(np.uint8)
    truth = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    truth = np.clip(truth, 1, [width - 1, height - 1, width - 1, height - 1])
    return np.repeat(grey[:, :, None], 3, axis=2), truth


def build_dataset(
    folder: str | Path, *, n_fractured: int, n_healthy: int, seed: int, size: tuple[int, int] = (320, 256)
) -> Dataset:
    """Write images, LabelImg XML (healthy: without object) and metadata.csv (file_name, anatomy, patient).

    Fractured and healthy images are mixed, PNG and JPEG alternate, and each patient has two images. Returns the
    truth, with `group_id` the patient and file names relative to `folder`/images.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.arange(n_fractured + n_healthy) < n_fractured)
    records = []
    for index, fractured in enumerate(kinds.tolist()):
        pixels, boxes = draw_radiograph(rng, fractured=fractured, size=size)
        name = f"limb_{seed}_{index:04d}" + (".png" if index % 2 else ".jpg")
        write_image(folder / "images" / name, pixels)
        xml = labelimg_xml(folder / "images" / name, pixels.shape, [("fracture", box) for box in boxes])
        (folder / "annotations" / name).with_suffix(".xml").write_text(xml, encoding="utf-8")
        patient = f"patient_{seed}_{index // IMAGES_PER_PATIENT:04d}"
        anatomy = ANATOMIES[index // IMAGES_PER_PATIENT % len(ANATOMIES)]
        records.append(
            ImageRecord(index + 1, name, *size, patient, anatomy, boxes, np.zeros(len(boxes), dtype=np.int64))
        )
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "anatomy", "patient"])
        writer.writerows([record.file_name, record.anatomy, record.group_id] for record in records)
    return Dataset(tuple(records), ("fracture",))


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write pixels (H, W, 3) uint8 RGB as PNG or as JPEG of quality 95, by the suffix; any name will do."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() in (".jpg", ".jpeg") else []
    _, encoded = cv2.imencode(path.suffix, pixels[:, :, ::-1], parameters)
    path.write_bytes(encoded.tobytes())


def labelimg_xml(image: Path, shape: tuple[int, ...], objects: Iterable[tuple[str, Iterable[float]]]) -> str:
    """Return the XML that LabelImg 1.8.6 saves for an image of `shape` (H, W, 3) with (name, box) objects."""
    height, width, depth = shape
    lines = [
        "<annotation>",
        f"\t<folder>{escape(image.parent.name)}</folder>",
        f"\t<filename>{escape(image.name)}</filename>",
        f"\t<path>{escape(str(image))}</path>",
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>{depth}</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for name, box in objects:
        x0, y0, x1, y1 = (round(value) for value in box)
        at_edge = int(y1 == height or y0 == 1 or x1 == width or x0 == 1)
        lines += [
            f"\t<object>\n\t\t<name>{escape(name)}</name>\n\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{at_edge}</truncated>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>",
            f"\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymin>{y0}</ymin>\n\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>",
            "\t\t</bndbox>\n\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _limb_frame(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Floats, Floats, Callable[[Floats], Floats]]:
    """Return (along, across) coordinates (H, W) in pixels about the limb's axis, and the way back to x, y."""
    height, width = size
    angle = rng.normal(0, 0.25) + (np.pi / 2 if height >= width else 0.0)
    centre = np.array([width, height]) * rng.uniform(0.45, 0.55, 2)
    direction, normal = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    y, x = np.mgrid[:height, :width]
    along = (x - centre[0]) * direction[0] + (y - centre[1]) * direction[1]
    across = (x - centre[0]) * normal[0] + (y - centre[1]) * normal[1]

    def to_image(points: Floats) -> Floats:
        mapped: Floats = centre + points[:, :1] * direction + points[:, 1:] * normal
        return mapped

    return along, across, to_image


def _bone(along: Floats, across: Floats, half_width: float, unit: float) -> Floats:
    """Return the brightness (H, W) that one bone adds: a marrow tube with a bright cortex, wider at its ends."""
    edge = half_width * (1 + 0.5 * (np.abs(along) / (unit * 150)) ** 3)
    inside = _soft_step(edge - np.abs(across), 1.5 * unit)
    cortex = np.exp(-(((edge - 3.5 * unit - np.abs(across)) / (2.6 * unit)) ** 2))
    brightness: Floats = inside * (45 + 75 * cortex)
    return brightness


def _jagged(rng: np.random.Generator, across: Floats, unit: float) -> Floats:
    knots = np.arange(-60, 61, 6) * unit
    return np.interp(across, knots, rng.normal(0, 2.5 * unit, len(knots)))


def _box_of(
    to_image: Callable[[Floats], Floats], break_at: float, middle: float, reach: float, tilt: float, unit: float
) -> list[float]:
    half_length = tilt * reach + 7 * unit
    corners = np.array([[break_at + a * half_length, middle + b * reach] for a in (-1, 1) for b in (-1, 1)])
    points = to_image(corners)
    return [float(value) for value in (*np.floor(points.min(0)), *np.ceil(points.max(0)))]


def _soft_step(distance: Floats, softness: float) -> Floats:
    step: Floats = 1 / (1 + np.exp(-np.clip(distance / (softness / 2), -50, 50)))
    return step
