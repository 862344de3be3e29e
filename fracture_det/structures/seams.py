"""Seams in a decoded JPEG: stretches of coded pixels that lie in each other's place, which no decoder notices.

Huffman codes synchronise again after a wrong stretch. If it codes as many blocks as belong there, the decoder has
nothing to complain about, and shows parts of the picture elsewhere or too bright. Such a stretch begins and ends within
a row of blocks, so that its outline has a step: from the step on to the right, blocks do not fit to those above them,
and in the next row those to the left of it. Anatomy, collimation and labels have edges too, but neither with such a
step nor just between blocks.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Chosen on 5,516 real JPEGs, none of which exceeds both, and 500 with misplaced stretches, of which 94 % do.
LIMIT, LIMIT_OVER_OTHERS = 14.0, 2.0
# A jump of grey values counts beyond this multiple of the differences beside it, plus one, and up to a most, so that
# the letters of a label weigh no more than a long faint seam.
BESIDE, LARGEST_JUMP = 1.5, 24.0
# Grey values by which two copies of a block differ at most, once they are coded again.
SAME = 8


def has_seam(grey: NDArray[np.uint8], block: tuple[int, int]) -> bool:
    """Say whether the outline of a misplaced stretch shows in a grey picture, (H, W).

    block: (height, width) in pixels of what the JPEG codes at once, which is 8 or 16 each. The outline must be more
    distinct between blocks than the same between other rows of the picture, a quarter, half and three quarters further.
    """
    height, _ = block
    strength, row = _strongest(grey, block)
    if strength <= LIMIT:
        return False
    rest = grey[(row + 2) * height :].astype(np.int16)
    if np.abs(rest[height:] - rest[:-height]).max(initial=0) <= SAME:
        # One block over and over: it was lost before this file was written, whose own pixels are right.
        return False
    others = (_strongest(grey[first:], block)[0] for first in (height // 4, height // 2, 3 * height // 4))
    return strength > LIMIT_OVER_OTHERS * max(others)


def _strongest(grey: NDArray[np.uint8], block: tuple[int, int]) -> tuple[float, int]:
    """Return the most distinct outline: the weaker of its two sides, in grey values, and the row of blocks above it."""
    height, width = block
    rows, columns = (grey.shape[0] - 2) // height, grey.shape[1] // width
    if rows < 3 or columns < 4:
        return 0.0, 0
    # The four rows of pixels around each boundary between rows of blocks.
    around = [
        grey[first : first + (rows - 1) * height + 1 : height, : columns * width].astype(np.int16)
        for first in range(height - 2, height + 2)
    ]
    above, across, below = (
        np.abs(upper - lower).reshape(rows, columns, width).mean(axis=2) for upper, lower in pairwise(around)
    )
    jumps = np.clip(across - BESIDE * (above + below) / 2 - 1, 0, LARGEST_JUMP)
    left = np.cumsum(jumps, axis=1) - jumps  # sum of the blocks left of each
    right = jumps.sum(axis=1, keepdims=True) - left
    weaker = np.minimum(right[:-1], left[1:]).max(axis=1) / np.sqrt(columns)
    return float(weaker.max()), int(weaker.argmax())
