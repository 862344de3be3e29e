"""The grey samples of a radiograph of more than 8 bits, as a viewer windows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_BITS, MAX_BITS = 9, 16


@dataclass(frozen=True, eq=False)
class GreySamples:
    """The samples of a grey radiograph of more than 8 bits, upright, as bright as bone is.

    values: (H, W) uint16. bits: how many of the 16 they use at most, 9 to 16.
    window: the values (low, high) that are 0 and 255 in the pixels of 8 bits; in DICOM's terms (PS3.3 C.11.2.1.2.1) the
    window's width is high - low + 1 and its centre (low + high + 1) / 2.
    """

    values: NDArray[np.uint16]
    bits: int
    window: tuple[float, float]

    def __post_init__(self) -> None:
        if self.values.dtype != np.uint16 or self.values.ndim != 2:
            raise ValueError(f"GreySamples.values: expected (H, W) uint16, got {self.values.shape} {self.values.dtype}")
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise ValueError(f"GreySamples.bits: expected {MIN_BITS} to {MAX_BITS}, got {self.bits}")
        low, high = self.window
        if not (np.isfinite(self.window).all() and low < high):
            raise ValueError(f"GreySamples.window: expected low < high, got {low}, {high}")


def bits_of(values: NDArray[np.uint16]) -> int:
    """Return how many bits the largest of `values` needs, at least MIN_BITS, where the file does not say."""
    return max(MIN_BITS, int(values.max(initial=0)).bit_length())
