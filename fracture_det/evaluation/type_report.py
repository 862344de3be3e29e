"""What a report says of the types of fracture, of images and of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fracture_det.calibration.calibration import Calibration
from fracture_det.data.records import Dataset
from fracture_det.evaluation.matching import shared_records
from fracture_det.evaluation.report import TypeRow, Types
from fracture_det.evaluation.type_boxes import type_boxes, typed
from fracture_det.evaluation.types import answers_of, evaluate_types, known_names, type_notes
from fracture_det.structures.detections import Detections


def evaluated_types(
    dataset: Dataset,
    detections: Mapping[int, Detections],
    type_names: Sequence[str],
    calibration: Calibration | None,
    *,
    n_bootstrap: int,
    seed: int,
) -> tuple[Types | None, list[str]]:
    """Return every figure of types with the notes on them; no figure, and no note, of a detector that tells no types.

    Raises TypeNameError for a type that configs/fracture_types.yaml does not list.
    """
    if not type_names:
        return None, []
    told, records = known_names(type_names), shared_records(dataset, detections)
    # As served: calibrated scores weight the boxes of a radiograph.
    served = detections if calibration is None else {key: calibration.apply(of) for key, of in detections.items()}
    answers = answers_of(records, served, told)
    notes = list(type_notes(records, answers, told))
    if not len(answers.truth):
        return None, [
            *notes,
            "Types: the detector tells them, but no image has one known type, so there are no figures.",
        ]
    threshold = None if calibration is None else calibration.types
    chosen_on = "" if calibration is None else calibration.fitted_on.get("data", "")
    types = evaluate_types(answers, threshold, n_bootstrap=n_bootstrap, seed=seed, chosen_on=chosen_on)
    boxes = type_boxes(dataset, detections, told, n_bootstrap=n_bootstrap, seed=seed)
    if boxes:
        left_out = sum(record.fractured for record in records) - sum(record.fractured for record in typed(records))
        notes += (
            [f"Types by box: {left_out} fractured images are left out, since not all of their boxes have a known type."]
            if left_out
            else []
        )
        rows = {row.name: replace(row, boxes=boxes.get(row.name, {})) for row in types.rows}
        rows |= {name: TypeRow(name, 0, {}, figures) for name, figures in boxes.items() if name not in rows}
        types = replace(types, rows=list(rows.values()))
    return types, notes
