"""Files that show the same picture: identical bytes, and near copies (other compression, size or cropping)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.data.image_info import ImageInfo, Thumbnail

# Copies of one picture reach a correlation of .99 at the best small shift; different pictures of one pose stay under
# it (a clean gap on FracAtlas: 165 pairs above .99, the next at .988).
MIN_CORRELATION = 0.99
# Two of eight bytes of the hash must agree, which holds for all pairs that differ in at most six bits.
MAX_HAMMING = 6
# In one bucket an image is compared with this many neighbours at most, so that a folder of thousands of blank images
# cannot make the search quadratic.
BUCKET_WINDOW = 64
_MARGIN_PX = 4
_MIN_CONTRAST = 2.0


def identical_files(infos: Sequence[ImageInfo]) -> list[list[str]]:
    """Return the groups of two or more files with the same bytes, each sorted, in order of their first file."""
    groups: dict[str, list[str]] = defaultdict(list)
    for info in infos:
        if info.sha256:
            groups[info.sha256].append(info.file_name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def near_duplicates(infos: Sequence[ImageInfo]) -> list[tuple[str, str, float]]:
    """Return the pairs (file, file, correlation) of files that show the same picture, sorted.

    Candidates come from a 64-bit perceptual hash in a banded index, near-linear in the number of files; each is
    verified on the thumbnails. Pairs of identical bytes are among them. Mirrored copies are not found.
    """
    seen = [info for info in infos if info.thumbnail is not None]
    if len(seen) < 2:
        return []
    thumbnails = np.stack([info.thumbnail for info in seen if info.thumbnail is not None])
    pairs = []
    for first, second in _candidates(perceptual_hashes(thumbnails)):
        correlation = similarity(thumbnails[first], thumbnails[second])
        if correlation > MIN_CORRELATION:
            names = sorted((seen[first].file_name, seen[second].file_name))
            pairs.append((names[0], names[1], round(correlation, 4)))
    return sorted(pairs)


def perceptual_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return hashes (N, 8) uint8 of thumbnails (N, 32, 32) uint8: signs of the low DCT frequencies about their median.

    The method is the pHash of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010).
    ImageHash's hashes were compared with it on FracAtlas (3,670 images; 146 pairs in .18 s of processor time), each
    with our banded index and check of the thumbnails: `phash` finds 147 pairs in .55 s; `whash` 149 in 3.8 s; `dhash`
    164 in 1.2 s, as 11,129 candidates instead of 684 have to be checked (what it adds are truncated copies, which are
    excluded anyway). Without that check each of them unites different radiographs of one pose by the hundreds.
    """
    hashes = np.empty((len(thumbnails), 8), dtype=np.uint8)
    for index, thumbnail in enumerate(thumbnails):
        frequencies = cv2.dct(thumbnail.astype(np.float32))[:8, :9].ravel()
        low = np.concatenate([frequencies[1:64], frequencies[-1:]])  # without the mean brightness
        hashes[index] = np.packbits(low > np.median(low))
    return hashes


def similarity(first: Thumbnail, second: Thumbnail) -> float:
    """Return the correlation (-1..1) of two thumbnails (32, 32) uint8 at the best shift of up to 4 px.

    Thumbnails without contrast match nothing, since two black images are no evidence of a copy.
    """
    best = -1.0
    for inner, outer in ((first, second), (second, first)):
        core = inner[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
        if core.std() < _MIN_CONTRAST or outer.std() < _MIN_CONTRAST:
            return -1.0
        scores = cv2.matchTemplate(outer.astype(np.float32), core.astype(np.float32), cv2.TM_CCOEFF_NORMED)
        best = max(best, float(scores[np.isfinite(scores)].max(initial=-1.0)))
    return min(best, 1.0)


def _candidates(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return index pairs (M, 2) of hashes (N, 8) that share two bytes and differ in at most MAX_HAMMING bits."""
    pairs_found = []
    for first, second in combinations(range(8), 2):
        key = hashes[:, first].astype(np.int64) << 8 | hashes[:, second]
        # Within a bucket, equal hashes lie side by side, so that the window keeps them.
        order = np.lexsort((*hashes.T, key))
        sorted_key = key[order]
        for step in range(1, min(BUCKET_WINDOW, len(order) - 1) + 1):
            same = np.flatnonzero(sorted_key[step:] == sorted_key[:-step])
            if not len(same):
                break
            left, right = order[same], order[same + step]
            differing = np.bitwise_count(hashes[left] ^ hashes[right]).sum(1)
            near = differing <= MAX_HAMMING
            pairs_found.append(np.stack([left[near], right[near]], axis=1))
    if not pairs_found:
        return np.zeros((0, 2), dtype=np.int64)
    pairs = np.sort(np.concatenate(pairs_found), axis=1)
    return np.unique(pairs, axis=0).astype(np.int64)
