"""How far two detectors agree on the same radiographs: levels, scores and boxes; whose truth is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.boxes import box_iou
from fracture_det.structures.markdown_table import markdown_table

SAME_BOX_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Said:
    """What a detector said of one radiograph.

    level: of the finding. score: the highest, 0 without a box. boxes: (N, 4) px from its possible score up.
    """

    level: str
    score: float
    boxes: NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """How many boxes both have, and each alone."""

    both: int = 0
    served: int = 0
    shadow: int = 0

    def __add__(self, other: Boxes) -> Boxes:
        return Boxes(self.both + other.both, self.served + other.served, self.shadow + other.shadow)


def match_boxes(served: NDArray[np.float64], shadow: NDArray[np.float64]) -> Boxes:
    """Match boxes (N, 4) and (M, 4) one to one from the highest IoU down, of at least .5."""
    overlaps = box_iou(served, shadow)
    both = 0
    while overlaps.size and overlaps.max() >= SAME_BOX_IOU:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row, :], overlaps[:, column] = 0, 0
        both += 1
    return Boxes(both, len(served) - both, len(shadow) - both)


@dataclass(frozen=True)
class Agreement:
    """Two detectors on n radiographs. shadow, served: names of the versions; served may be another detector's name.

    levels: (level of the served, of the shadow) -> radiographs. agreement: share of equal levels. kappa: see
    `cohens_kappa`. score_mean, score_median: shadow minus served; score_p95: the 95th percentile of its size.
    calibrated: whether the scores of both are probabilities; else they are of different scales.
    """

    shadow: str
    served: str
    n: int
    levels: Mapping[tuple[str, str], int]
    agreement: float
    kappa: float | None
    score_mean: float
    score_median: float
    score_p95: float
    boxes: Boxes
    calibrated: bool

    def lines(self) -> list[str]:
        """Return it as text, a Markdown table among it."""
        names = sorted({level for pair in self.levels for level in pair})
        rows = [[name, *(str(self.levels.get((name, other), 0)) for other in names)] for name in names]
        kappa = "not defined: one level alone" if self.kappa is None else f"{self.kappa:.3f}"
        scale = "" if self.calibrated else " (not both are probabilities)"
        return [
            f"{self.shadow} in the shadow of {self.served}: {self.n} radiographs",
            f"same level: {self.agreement:.1%}; Cohen's kappa: {kappa}",
            f"highest score, shadow minus served: mean {self.score_mean:+.3f}, median {self.score_median:+.3f}, 95 % "
            f"within {self.score_p95:.3f}{scale}",
            f"boxes at IoU {SAME_BOX_IOU:g}: {self.boxes.both} of both, {self.boxes.served} of the served alone, "
            f"{self.boxes.shadow} of the shadow alone",
            "",
            markdown_table(["served, below; shadow, right", *names], rows),
        ]


def agree(shadow: str, served: str, pairs: Sequence[tuple[Said, Said]], *, calibrated: bool = True) -> Agreement:
    """Return how far two versions agree. pairs: (served, shadow) by radiograph, at least one."""
    levels = Counter((one.level, other.level) for one, other in pairs)
    differences = [other.score - one.score for one, other in pairs]
    equal = sum(count for (one, other), count in levels.items() if one == other)
    boxes = Boxes()
    for one, other in pairs:
        boxes += match_boxes(one.boxes, other.boxes)
    return Agreement(
        shadow,
        served,
        len(pairs),
        dict(sorted(levels.items())),
        equal / len(pairs),
        cohens_kappa(levels),
        fmean(differences),
        median(differences),
        float(np.quantile(np.abs(differences), 0.95)),
        boxes,
        calibrated,
    )


def cohens_kappa(levels: Mapping[tuple[str, str], int]) -> float | None:
    """Return Cohen's kappa, (po - pe) / (1 - pe), unweighted (Cohen 1960, Educ. Psychol. Meas. 20, 37-46).

    None where both have only one and the same level, so that chance alone explains everything.
    """
    n = sum(levels.values())
    names = {level for pair in levels for level in pair}
    observed = sum(levels.get((name, name), 0) for name in names) / n
    first = {name: sum(count for (one, _), count in levels.items() if one == name) for name in names}
    second = {name: sum(count for (_, other), count in levels.items() if other == name) for name in names}
    expected = sum(first[name] * second[name] for name in names) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)
