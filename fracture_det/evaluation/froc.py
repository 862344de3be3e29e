"""Free-response ROC curves: sensitivity against false positives per image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fracture_det.evaluation.lesion_level import Floats, equal_weights
from fracture_det.evaluation.matching import Matches

# The false positives per image of the LUNA16 challenge (Setio et al. 2017).
FROC_TARGETS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, eq=False)
class FrocCurve:
    """Free-response curve (Bunch et al. 1978), from strict to lenient; it starts at (0, 0) without a box.

    score: (K,) the threshold of each point (inf at the start). fp_per_image, sensitivity: (K,).
    """

    score: Floats
    fp_per_image: Floats
    sensitivity: Floats

    def at(self, targets: ArrayLike = FROC_TARGETS) -> Floats:
        """Return the highest sensitivity at no more than so many false positives per image; no interpolation.

        Beyond the last point, which counts every box, it stays constant.
        """
        index = np.searchsorted(self.fp_per_image, np.asarray(targets) + 1e-12, side="right") - 1
        return self.sensitivity[index]


def froc_curve(matches: Matches, weights: Floats | None = None) -> FrocCurve:
    """Return sensitivity over false positives per image, all images (healthy ones too) in the denominator.

    Boxes of equal score count together. Sensitivity is NaN without truth.
    """
    weights = equal_weights(matches) if weights is None else weights
    box_weights = weights[matches.image]
    ends = matches.tie_ends
    true = np.cumsum(box_weights * matches.hit)[ends]
    false = np.cumsum(box_weights)[ends] - true
    n_truth, n_images = float(weights @ matches.truth.sum(axis=1)), float(weights.sum())
    sensitivity = np.append(0.0, true) / n_truth if n_truth else np.full(len(ends) + 1, np.nan)
    fp_per_image = np.append(0.0, false) / n_images if n_images else np.zeros(len(ends) + 1)
    return FrocCurve(np.append(np.inf, matches.score[ends]).astype(float), fp_per_image, sensitivity)
