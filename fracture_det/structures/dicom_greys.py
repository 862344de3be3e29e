"""From stored values to the greys that a DICOM file means: PS3.3, C.7.6.3, C.11.1, C.11.2 and C.11.6; PS3.4, N.2.

Whatever the file says, of a picture of at most 16 bits it can be said as one table: stored value -> grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.image_errors import DamagedImage

Values = NDArray[np.float64]
# No unit of a radiograph needs more; far beyond, numbers overflow or swallow the samples, and the picture is blank.
LARGEST_RESCALE = 1e12
LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"


@dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3, C.11.2.1.2 and C.11.2.1.3), in values after the modality LUT."""

    center: float
    width: float
    function: str = LINEAR

    def __post_init__(self) -> None:
        smallest = 1.0 if self.function == LINEAR else 0.0
        usable = np.isfinite(self.center) and np.isfinite(self.width) and self.width >= smallest and self.width > 0
        if not usable:
            raise DamagedImage(f"its window has a center {self.center:g} and a width {self.width:g}")
        if self.function not in (LINEAR, LINEAR_EXACT, SIGMOID):
            raise DamagedImage("its VOILUTFunction is none that there is")

    def greys(self, values: Values) -> Values:
        """Return greys 0..1 of values."""
        if self.function == SIGMOID:
            # Beyond 700 the exponential overflows, and the grey is 0 or 1 long before.
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - self.center) / self.width, -700, 700))))
        if self.function == LINEAR_EXACT:
            return np.asarray(np.clip((values - self.center) / self.width + 0.5, 0, 1))
        if self.width == 1:
            return (values > self.center - 0.5).astype(np.float64)
        return np.asarray(np.clip((values - (self.center - 0.5)) / (self.width - 1) + 0.5, 0, 1))


@dataclass(frozen=True, eq=False)
class Table:
    """A lookup table (PS3.3, C.11.1.1 and C.11.2.1.1): `entries`, of `bits` each, for values from `first` on."""

    first: int
    bits: int
    entries: NDArray[Any]

    def look_up(self, values: Values) -> Values:
        """Return the entries for values; those below `first` have the first entry, those above the last one."""
        index = np.clip(np.floor(values + 0.5) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        return np.asarray(self.entries[index].astype(np.float64))

    def greys(self, values: Values) -> Values:
        """Return greys 0..1 of values."""
        return np.asarray(np.clip(self.look_up(values) / (2**self.bits - 1), 0, 1))


@dataclass(frozen=True, eq=False)
class GreyScale:
    """What a file says of its greys.

    allocated, stored, high_bit, signed: where in a sample its value is. slope, intercept: of the modality LUT, unless
    it is a table. voi: what makes the values visible; None where the file does not say. inverted: low values are
    bright. padding: (low, high) of stored values that are no picture, both included.
    """

    allocated: int
    stored: int
    high_bit: int
    signed: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality: Table | None = None
    voi: Window | Table | None = None
    inverted: bool = False
    padding: tuple[int, int] | None = None

    def stored_values(self) -> Values:
        """Return, for each bit pattern of a sample (2 ** allocated), the value stored in it."""
        patterns = np.arange(1 << self.allocated, dtype=np.int64)
        values = patterns >> (self.high_bit + 1 - self.stored) & ((1 << self.stored) - 1)
        if self.signed:
            values -= (values >= 1 << (self.stored - 1)) * (1 << self.stored)
        return values.astype(np.float64)

    def modality_values(self) -> Values:
        """Return, for each bit pattern of a sample, its value after the modality LUT."""
        values = self.stored_values()
        if self.modality is not None:
            return self.modality.look_up(values)
        if max(abs(self.slope), abs(self.intercept)) > LARGEST_RESCALE:
            raise DamagedImage(f"its RescaleSlope or RescaleIntercept is beyond {LARGEST_RESCALE:g}")
        return values * self.slope + self.intercept

    def is_padding(self) -> NDArray[np.bool_]:
        """Say of each bit pattern of a sample whether it is no picture (PS3.3, C.7.5.1.1.2)."""
        if self.padding is None:
            return np.zeros(2**self.allocated, np.bool_)
        values = self.stored_values()
        return np.asarray((values >= self.padding[0]) & (values <= self.padding[1]))

    @property
    def is_plain(self) -> bool:
        """Whether stored values are greys already: 8 bits, and nothing said of them but which end is bright."""
        return self.stored == 8 and not self.signed and self.modality is None and self.slope > 0 and self.voi is None

    @property
    def bits(self) -> int:
        """How many bits a value after the modality LUT takes, apart from its slope and intercept."""
        return self.stored if self.modality is None else max(8, self.modality.bits)

    def samples(self, greys: Values) -> tuple[NDArray[np.uint16], tuple[float, float]]:
        """Return, for each bit pattern of a sample, its value as a viewer windows it, and which are black and white.

        greys: what `greys` returned. Values are those after the modality LUT, without its slope and intercept, from 0
        on and as bright as bone is; padding is 0.
        """
        top = (1 << self.bits) - 1
        values = self.stored_values() + (1 << (self.stored - 1)) * self.signed
        if self.modality is not None:
            values = np.clip(self.modality.look_up(self.stored_values()), 0, top)
        if self.inverted != (self.slope < 0 and self.modality is None):
            values = top - values
        there = ~self.is_padding()
        black, white = values[there & (greys <= 0)], values[there & (greys >= 1)]
        low = float(black.max()) if black.size else float(values[there].min())
        high = float(white.min()) if white.size else float(values[there].max())
        return np.where(there, values, 0).astype(np.uint16), (low, max(high, low + 1))

    def greys(self, counts: NDArray[np.int64]) -> Values:
        """Return the grey 0..1 of each bit pattern of a sample; `counts` says how often each occurs.

        Values without a window or a table are shown from their .1 to their 99.9 percentile, as those of a PNG of more
        than 8 bits are. Padding is black. Raises DamagedImage where there is nothing but padding.
        """
        padding = self.is_padding()
        if not (counts > 0)[~padding].any():
            raise DamagedImage("every pixel of it is padding")
        values = self.modality_values()
        if self.voi is not None:
            greys = self.voi.greys(values)
        elif self.is_plain:
            greys = self.stored_values() / 255
        else:
            low, high = percentiles(values, np.where(padding, 0, counts))
            greys = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
        if self.inverted:
            greys = 1 - greys
        return np.where(padding, 0.0, greys)


def percentiles(values: Values, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the .1 and 99.9 percentiles of values that occur so often, or the extremes where these are one value."""
    there = np.flatnonzero(counts)
    order = there[np.argsort(values[there], kind="stable")]
    below = np.cumsum(counts[order])
    places = np.array([0.001, 0.999]) * (below[-1] - 1)
    under, over = (values[order][np.searchsorted(below, edge(places), side="right")] for edge in (np.floor, np.ceil))
    low, high = under + (over - under) * (places - np.floor(places))
    return (float(low), float(high)) if high > low else (float(values[order[0]]), float(values[order[-1]]))
