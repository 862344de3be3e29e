"""Types of fracture by box: each type is detected as if it were the only one, by score times its probability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.bootstrap import bootstrap_intervals
from fracture_det.evaluation.estimates import Basis, estimate
from fracture_det.evaluation.froc import froc_curve
from fracture_det.evaluation.lesion_level import Floats, average_precision
from fracture_det.evaluation.matching import Matches, match_dataset
from fracture_det.evaluation.report import Estimate
from fracture_det.evaluation.strata import of_boxes
from fracture_det.structures.detections import Detections

# False positives per image at which the sensitivity for a type is stated.
TARGETS = (0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class _TypeMatches:
    """The matches of one type: of its own scores, and of the scores alone, as if the detector told no types."""

    own: Matches
    alone: Matches

    def statistics(self, weights: Floats) -> dict[str, float]:
        own, alone = average_precision(self.own, weights), average_precision(self.alone, weights)
        sensitivity = froc_curve(self.own, weights).at(TARGETS).tolist()
        froc = {f"FROC@{target:g}": value for target, value in zip(TARGETS, sensitivity, strict=True)}
        return {"AP50": own, "AP50 by score alone": alone, "AP50 gained": own - alone, **froc}


def type_boxes(
    dataset: Dataset, detections: Mapping[int, Detections], type_names: Sequence[str], *, n_bootstrap: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """Return AP50 and FROC of every type that a truth box has; empty where none has one.

    A box of a type hits only truth boxes of that type, at IoU .5; its score is the detector's times the type's
    probability. All healthy images take part, and the fractured ones whose boxes all have a known type.
    type_names: what the columns of `Detections.types` are, as the house names them. An image whose detections have no
    types has no box of any.
    """
    usable = Dataset(tuple(typed(dataset.records)), dataset.class_names)
    present = dict.fromkeys(kind for record in usable for kind in record.types if kind is not None)
    by_type = {}
    for name in sorted(present, key=lambda kind: (kind not in type_names, [*type_names, kind].index(kind))):
        matches = _match(usable, detections, name, type_names)
        results = bootstrap_intervals(matches.statistics, matches.own.group, n_bootstrap=n_bootstrap, seed=seed)
        n = matches.own.n_truth
        by_type[name] = {
            key: estimate(result, Basis(n, f"no box is {name}", result.value * n if key.startswith("FROC") else None))
            for key, result in results.items()
        }
    return by_type


def typed(records: Sequence[ImageRecord]) -> Iterator[ImageRecord]:
    """Yield the healthy images, and those of which every box has a known type."""
    return (record for record in records if None not in record.types and (len(record.boxes) or not record.fractured))


def _match(
    dataset: Dataset, detections: Mapping[int, Detections], name: str, type_names: Sequence[str]
) -> _TypeMatches:
    records = tuple(of_boxes(record, np.array([kind == name for kind in record.types], bool)) for record in dataset)
    of_type = Dataset(records, dataset.class_names)
    column = type_names.index(name) if name in type_names else None
    shared = {record.image_id: detections[record.image_id] for record in dataset if record.image_id in detections}
    own = {image_id: _scored(image, column) for image_id, image in shared.items()}
    return _TypeMatches(match_dataset(of_type, own), match_dataset(of_type, shared))


def _scored(image: Detections, column: int | None) -> Detections:
    """Return the detections with their scores for one type."""
    if column is None or image.types is None:
        return Detections.empty()
    return Detections.from_unsorted(image.boxes, image.scores * image.types[:, column], image.classes)
