"""Pictures that are drawn, not collected: pages of text, tables, charts, gradients, noise, shapes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fracture_det.structures.radiograph import Pixels

FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)  # fmt: skip
LETTERS = "aaabcdeeeefghiiijklmnnooopqrrsssttuvwxyz"


def draw_document(rng: np.random.Generator) -> Pixels:
    """Draw a page, a table, a form, a window or a chart, (H, W, 3) uint8 RGB."""
    height, width = int(rng.integers(300, 1100)), int(rng.integers(300, 1100))
    paper = rng.uniform(215, 255, 3) if rng.random() < 0.75 else rng.uniform(0, 60, 3)
    ink = rng.uniform(0, 90, 3) if paper.mean() > 127 else rng.uniform(170, 255, 3)
    page = np.full((height, width, 3), paper, dtype=np.uint8)
    kind: Callable[..., None] = [_text, _text, _table, _window, _chart][int(rng.integers(5))]
    kind(page, rng, [float(value) for value in ink])
    if rng.random() < 0.4:  # photographed
        light = np.linspace(rng.uniform(0.6, 1), 1, width) * np.linspace(1, rng.uniform(0.6, 1), height)[:, None]
        page = np.clip(page * light[:, :, None] + rng.normal(0, 3, page.shape), 0, 255).astype(np.uint8)
    return page


def draw_other(rng: np.random.Generator) -> Pixels:
    """Draw a gradient, noise, stripes, blobs or shapes, (H, W, 3) uint8 RGB."""
    height, width = int(rng.integers(150, 700)), int(rng.integers(150, 700))
    kind = int(rng.integers(6))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn)
    if kind == 0:
        plane = 255 * (along - along.min()) / (np.ptp(along) + 1)
    elif kind == 1:
        plane = rng.normal(128, rng.uniform(15, 70), (height, width))
        plane = cv2.GaussianBlur(plane, (0, 0), rng.uniform(0.3, 6))
        plane = (plane - plane.mean()) / (plane.std() + 1) * rng.uniform(20, 70) + 128
    elif kind == 2:
        plane = 127 + rng.uniform(40, 127) * np.sign(np.sin(along / rng.uniform(3, 40)))
    elif kind == 3:
        plane = _cloud(rng, height, width)
    elif kind == 4:
        plane = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height))
        plane = 255 * (1 - plane / plane.max()) ** rng.uniform(0.5, 4)
    else:
        plane = _shapes(rng, height, width)
    colours = rng.uniform(0.3, 1, 3) if rng.random() < 0.4 else np.ones(3)
    return np.asarray(np.clip(plane[:, :, None] * colours, 0, 255), dtype=np.uint8)


def _cloud(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose power falls with frequency, as that of clouds, walls and skin does."""
    slope = rng.uniform(0.6, 2.2)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    wave = np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**slope
    wave[0, 0] = 0
    plane = np.fft.irfft2(wave, (height, width))
    return np.asarray(plane / (plane.std() + 1e-9) * rng.uniform(25, 60) + rng.uniform(60, 190))


def _shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    plane = np.full((height, width), rng.uniform(0, 255))
    for _ in range(int(rng.integers(3, 40))):
        corner = (int(rng.integers(width)), int(rng.integers(height)))
        size = (int(rng.integers(4, width // 2)), int(rng.integers(4, height // 2)))
        level = float(rng.uniform(0, 255))
        if rng.random() < 0.5:
            cv2.rectangle(plane, corner, (corner[0] + size[0], corner[1] + size[1]), level, -1)
        else:
            cv2.ellipse(plane, corner, size, float(rng.uniform(0, 180)), 0, 360, level, -1)
    return plane


def _words(rng: np.random.Generator, length: int) -> str:
    letters = rng.choice(list(LETTERS), length)
    gaps = rng.random(length) < 0.17
    return "".join(" " if gap else letter for letter, gap in zip(letters, gaps, strict=True))


def _line(
    page: Pixels, rng: np.random.Generator, place: tuple[int, int], room: int, size: float, ink: list[float]
) -> None:
    font = FONTS[int(rng.integers(len(FONTS)))]
    text = _words(rng, max(2, int(room / (18 * size))))
    cv2.putText(page, text, place, font, size, ink, max(1, round(size * rng.uniform(0.8, 2))), cv2.LINE_AA)


def _text(page: Pixels, rng: np.random.Generator, ink: list[float]) -> None:
    height, width = page.shape[:2]
    size = float(rng.uniform(0.35, 1.3))
    step, left = round(size * rng.uniform(28, 50)), int(rng.integers(8, width // 6))
    for y in range(int(rng.integers(20, 60)), height - 10, step):
        if rng.random() < 0.9:
            _line(page, rng, (left, y), int((width - 2 * left) * rng.choice([1, 1, 1, rng.uniform(0.2, 1)])), size, ink)


def _table(page: Pixels, rng: np.random.Generator, ink: list[float]) -> None:
    height, width = page.shape[:2]
    rows, columns = int(rng.integers(4, 25)), int(rng.integers(2, 8))
    for row in range(rows + 1):
        y = 10 + row * (height - 20) // rows
        cv2.line(page, (10, y), (width - 10, y), ink, 1)
    for column in range(columns + 1):
        x = 10 + column * (width - 20) // columns
        cv2.line(page, (x, 10), (x, height - 10), ink, 1)
        for row in range(rows if column < columns else 0):
            if rng.random() < 0.8:
                y = 10 + row * (height - 20) // rows + 20
                _line(page, rng, (x + 5, y), (width - 20) // columns - 10, float(rng.uniform(0.3, 0.6)), ink)


def _window(page: Pixels, rng: np.random.Generator, ink: list[float]) -> None:
    height, width = page.shape[:2]
    for _ in range(int(rng.integers(2, 9))):
        corner = (int(rng.integers(width - 40)), int(rng.integers(height - 40)))
        size = (int(rng.integers(40, width)), int(rng.integers(20, height // 2)))
        other = (corner[0] + size[0], corner[1] + size[1])
        cv2.rectangle(
            page, corner, other, [float(value) for value in rng.uniform(0, 255, 3)], -1 if rng.random() < 0.6 else 2
        )
        _line(page, rng, (corner[0] + 6, corner[1] + 18), size[0], float(rng.uniform(0.3, 0.7)), ink)
    _text(page, rng, ink)


def _chart(page: Pixels, rng: np.random.Generator, ink: list[float]) -> None:
    height, width = page.shape[:2]
    cv2.line(page, (50, 20), (50, height - 40), ink, 2)
    cv2.line(page, (50, height - 40), (width - 20, height - 40), ink, 2)
    for _ in range(int(rng.integers(1, 6))):
        colour = [float(value) for value in rng.uniform(0, 255, 3)]
        count = int(rng.integers(4, 40))
        x = np.linspace(55, width - 30, count)
        y = np.clip(height / 2 + np.cumsum(rng.normal(0, height / 15, count)), 25, height - 45)
        if rng.random() < 0.5:
            cv2.polylines(page, [np.stack([x, y], axis=1).astype(np.int32)], False, colour, 2, cv2.LINE_AA)
        else:
            for left, top in zip(x.astype(int), y.astype(int), strict=True):
                cv2.rectangle(page, (int(left), int(top)), (int(left) + 8, height - 41), colour, -1)
    _line(page, rng, (60, 18), width - 80, 0.6, ink)
