"""Numbers that tell a radiograph from another picture: greys, borders, edges, texture, colour, layout.

All are measured on a copy of at most SIDE_PX, so that a phone's picture and a scan of 20 megapixels are treated alike,
and none depends on where up is: a radiograph may lie on its side.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.radiograph import Pixels

SIDE_PX = 192
# A larger picture loses rows and columns first: averaging 20 megapixels would take longer than everything else.
COARSE_PX = 1024
GREY_BINS = 16
EDGE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
BLOCK_PX = 16
BAND_COUNT = 4
RINGS = 5
EPSILON = 1e-6

# Which of ten patterns each of the 256 codes of eight neighbours is: the number of ones, or 9 where they are scattered.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
PATTERN_OF_CODE = np.where((np.roll(_BITS, 1, axis=1) != _BITS).sum(axis=1) <= 2, _BITS.sum(axis=1), 9)

Values = NDArray[np.float64]
Plane = NDArray[np.float32]


def shrink(pixels: Pixels) -> Pixels:
    """Return pixels (H, W, 3) uint8 RGB with a longer side of at most SIDE_PX."""
    step = max(1, max(pixels.shape[:2]) // COARSE_PX)
    pixels = np.ascontiguousarray(pixels[::step, ::step])
    height, width = pixels.shape[:2]
    scale = SIDE_PX / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def to_grey(small: Pixels) -> Plane:
    """Return the grey (H, W) float32 0..255 of pixels (H, W, 3) RGB."""
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


@dataclass(frozen=True)
class Colour:
    """How colourful a picture is.

    tint: mean chroma 0..1; a radiograph on a phone may have one. spread: the part of the colour (0..1) that the
    brightness does not explain, so that a tinted grey picture has none. vivid: share of pixels of a chroma above .25.
    hues: share of the hue circle that coloured pixels occupy.
    """

    tint: float
    spread: float
    vivid: float
    hues: float


def measure_colour(small: Pixels) -> Colour:
    """Measure the colours of pixels (H, W, 3) uint8 RGB."""
    rgb = np.ascontiguousarray(small[::2, ::2]).reshape(-1, 3).astype(np.float32) / 255
    red, green, blue = rgb.T
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    grey = (red + green + blue) / 3
    opponent = np.stack([red - green, (red + green) / 2 - blue], axis=1)
    # What a curve of the brightness explains is a tint: warm shadows and cold lights are one, too.
    design = np.stack([np.ones_like(grey), grey, grey * grey, grey * grey * grey], axis=1)
    fitted = np.linalg.lstsq(design[::4], opponent[::4], rcond=None)[0]
    rest = opponent - design @ fitted
    spread = float(np.sqrt(2 * np.mean(rest * rest)))
    coloured = opponent[chroma > 0.12]
    hues = 0.0
    if len(coloured) > 0.01 * len(opponent):
        angle = np.arctan2(coloured[:, 1], coloured[:, 0])
        counts = np.histogram(angle, bins=12, range=(-np.pi, np.pi))[0] / len(coloured)
        hues = float((counts > 0.02).mean())
    return Colour(float(chroma.mean()), spread, float((chroma > 0.25).mean()), hues)


def picture_features(small: Pixels) -> Values:
    """Return the features (F,) float64 of a picture that `shrink` made, (H, W, 3) uint8 RGB."""
    grey = to_grey(small)
    colour = measure_colour(small)
    parts = [
        _grey_values(grey),
        _borders(grey),
        _edges(grey),
        _bands(grey),
        _spectrum(grey),
        _patterns(grey),
        _patterns(_halved(grey)),
        _blocks(grey),
        _lines(grey),
        _layout(grey),
        np.array([np.sqrt(colour.tint), np.sqrt(colour.spread), np.sqrt(colour.vivid), colour.hues]),
    ]
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])


def _grey_values(grey: Plane) -> Values:
    counts = np.bincount(grey.astype(np.uint8).ravel(), minlength=256) / grey.size
    coarse = counts.reshape(GREY_BINS, -1).sum(axis=1)
    used = counts[counts > 0]
    points = np.interp([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99], np.cumsum(counts), np.arange(256)) / 255
    mean, std = float(grey.mean()), float(grey.std()) + EPSILON
    levels = (np.arange(256) - mean) / std
    skew, kurtosis = float(counts @ levels**3), float(counts @ levels**4)
    shape = [mean / 255, std / 128, np.tanh(skew / 2), np.log1p(kurtosis), -float((used * np.log(used)).sum())]
    # A flat page and a drawing have few greys, a film many.
    flat = [float(np.sort(counts)[-3:].sum()), float((counts > 1 / 2000).mean()), float(counts[0] + counts[255])]
    return np.array([*np.sqrt(coarse), *points, *shape, *flat])


def _borders(grey: Plane) -> Values:
    """Describe the four sides and corners, each sorted from dark to bright."""
    deep = max(2, min(grey.shape) // 16)
    sides = [grey[:deep], grey[-deep:], grey[:, :deep], grey[:, -deep:]]
    means = np.sort([side.mean() for side in sides]) / 255
    stds = np.sort([side.std() for side in sides]) / 128
    corners = np.sort(
        [grey[y, x].mean() for y in (slice(deep), slice(-deep, None)) for x in (slice(deep), slice(-deep, None))]
    )
    centre = grey[grey.shape[0] // 4 : -grey.shape[0] // 4, grey.shape[1] // 4 : -grey.shape[1] // 4]
    inner = (float(centre.mean()) - float(np.mean([side.mean() for side in sides]))) / 255
    return np.array([*means, *stds, *(corners / 255), inner, abs(inner)])


def _edges(grey: Plane) -> Values:
    """Describe gradients at three scales: how strong they are, and how much they prefer the axes."""
    values: list[float] = []
    for scale in (1.0, 0.5, 0.25):
        plane = grey if scale == 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        across, down = cv2.Scharr(plane, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(plane, cv2.CV_32F, 0, 1) / 32
        size = cv2.magnitude(across, down)
        # As np.histogram, which sorts.
        below = np.array([0, *(np.count_nonzero(size < bound) for bound in EDGE_BOUNDS), size.size])
        counts = np.diff(below) / size.size
        weight = float(size.sum()) + EPSILON
        # The energy of the direction's harmonics: 2 for one direction, 4 for a grid, 8 for a grid and its diagonals.
        turn = (across + 1j * down) / (size + EPSILON)
        second = turn * turn
        fourth = second * second
        harmonics = [abs(np.vdot(size, power)) / weight for power in (second, fourth, fourth * fourth)]
        at_axes = float(size[np.abs(second.imag) < 0.1].sum()) / weight
        values += [*np.sqrt(counts), *harmonics, at_axes, float(np.log1p(size.mean())), float(np.log1p(size.std()))]
    return np.array(values)


def _halved(plane: Plane) -> Plane:
    half = cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.float32)


def _bands(grey: Plane) -> Values:
    """Describe octaves of detail: energy, and how rare strong detail is."""
    values: list[float] = []
    energies: list[float] = []
    plane = grey
    for _ in range(BAND_COUNT):
        if min(plane.shape) < 8:
            energies.append(energies[-1] if energies else 0.0)
            values += [0.0, 0.0]
            continue
        low = cv2.GaussianBlur(plane, (0, 0), 1.2)
        detail = plane - low
        square = detail * detail
        variance = float(square.mean()) + EPSILON
        energies.append(float(np.log(np.sqrt(variance) + 0.1)))
        kurtosis = float((square * square).mean()) / variance**2
        skew = float((square * detail).mean()) / variance**1.5
        values += [float(np.log1p(kurtosis)), float(np.tanh(skew / 2))]
        plane = _halved(np.asarray(low, dtype=np.float32))
    return np.array([*values, *energies, *np.diff(energies)])


def _spectrum(grey: Plane) -> Values:
    """Describe how power falls with frequency, in all and along the axes."""
    side = 128
    square = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    window = np.hanning(side).astype(np.float32)
    power = np.abs(np.fft.rfft2((square - square.mean()) * window[:, None] * window[None])) ** 2
    down = np.minimum(np.arange(side), side - np.arange(side))[:, None]
    across = np.arange(side // 2 + 1)[None]
    radius = np.hypot(down, across)
    rings = np.clip(np.log2(np.maximum(radius, 1)) * 2, 0, 11).astype(int)
    sums = np.bincount(rings.ravel(), power.ravel(), minlength=12) / np.bincount(rings.ravel(), minlength=12)
    logs = np.log(sums + 1e-3)[1:]
    logs = logs - logs.mean()
    high = radius > 8
    total = float(power[high].sum()) + EPSILON
    axes = float(power[high & ((down < 2) | (across < 2))].sum()) / total
    return np.array([*logs, np.sqrt(axes)])


def _patterns(grey: Plane) -> Values:
    """Return the histogram (10,) of rotation-invariant uniform local binary patterns, after Ojala et al. 2002."""
    centre = grey[1:-1, 1:-1]
    height, width = grey.shape
    offsets = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    code = np.zeros(centre.shape, np.uint8)
    above = centre + 1
    for bit, (y, x) in enumerate(offsets):
        code |= (grey[1 + y : height - 1 + y, 1 + x : width - 1 + x] >= above).view(np.uint8) << bit
    counts = np.bincount(code.ravel(), minlength=256)
    return np.sqrt(np.bincount(PATTERN_OF_CODE, counts, minlength=10) / max(code.size, 1))


def _blocks(grey: Plane) -> Values:
    """Describe how the detail is spread: deviation within blocks, and of blocks from each other."""
    mean = cv2.boxFilter(grey, -1, (BLOCK_PX, BLOCK_PX))
    square = cv2.boxFilter(grey * grey, -1, (BLOCK_PX, BLOCK_PX))
    half = BLOCK_PX // 2
    std = np.sqrt(np.maximum(square - mean * mean, 0))[half::half, half::half]
    if not std.size:
        return np.zeros(12)
    points = np.quantile(std, (0.05, 0.25, 0.5, 0.75, 0.95))
    flat = [(std < bound).mean() for bound in (1, 3, 8, 20)]
    level = mean[half::half, half::half]
    related = float(np.corrcoef(level.ravel(), std.ravel())[0, 1]) if min(level.std(), std.std()) > 0 else 0.0
    dark = std[level < np.median(level)].mean() if (level < np.median(level)).any() else 0.0
    bright = std[level >= np.median(level)].mean()
    return np.array([*np.log1p(points), *flat, related, np.log1p(dark), np.log1p(bright)])


def _lines(grey: Plane) -> Values:
    """Describe long structures, from the structure tensor at two scales, and page-like rows of edges."""
    values: list[float] = []
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    products = cv2.resize(cv2.merge([across * across, down * down, across * down]), None, fx=0.5, fy=0.5,
        interpolation=cv2.INTER_AREA)  # fmt: skip
    for sigma in (1.0, 3.0):
        xx, yy, xy = cv2.split(cv2.GaussianBlur(products, (0, 0), sigma))
        energy = xx + yy
        coherence = cv2.magnitude(xx - yy, 2 * xy) / (energy + 1.0)
        weight = energy / (float(energy.sum()) + EPSILON)
        values += [float((weight * coherence).sum()), float(coherence.mean()), float((coherence > 0.7).mean())]
        values.append(float(np.hypot((xx - yy).sum(), 2 * xy.sum()) / (float(energy.sum()) + EPSILON)))
    strong = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 40
    rows, columns = np.sort([strong.mean(axis=1).std(), strong.mean(axis=0).std()])
    thin_dark = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, np.ones((7, 7), np.uint8))
    thin_bright = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((7, 7), np.uint8))
    thin = [float((plane > 30).mean()) for plane in (thin_dark, thin_bright)]
    return np.array([*values, float(strong.mean()), rows, columns, *np.sqrt(thin), np.log1p(thin_dark.mean())])


def _layout(grey: Plane) -> Values:
    """Describe where it is bright and where detail is, from the middle outwards, and how symmetric the picture is."""
    square = cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA) / 255
    y, x = np.mgrid[:48, :48] - 23.5
    ring = np.clip(np.maximum(np.abs(x), np.abs(y)) / 24 * RINGS, 0, RINGS - 1).astype(int).ravel()
    count = np.bincount(ring, minlength=RINGS)
    level = np.bincount(ring, square.ravel(), minlength=RINGS) / count
    detail = np.abs(square - cv2.GaussianBlur(square, (0, 0), 2)).ravel()
    activity = np.bincount(ring, detail, minlength=RINGS) / count
    centred = square - square.mean()
    norm = float((centred**2).sum()) + EPSILON
    mirrored = sorted(float((centred * other).sum()) / norm for other in (centred[::-1], centred[:, ::-1]))
    profiles = sorted(float(centred.mean(axis=axis).std()) for axis in (0, 1))
    return np.array([*(level - level.mean()), *np.log(activity + 1e-3), *mirrored, *profiles])
