"""A report with types of fracture, evaluated from drawn-up answers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from fracture_det.calibration.type_threshold import TypeThreshold
from fracture_det.data.records import Dataset
from fracture_det.evaluation.evaluator import evaluate
from fracture_det.evaluation.report import Report, Types
from fracture_det.evaluation.types import answers_of, evaluate_types
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import box, record

TOLD = ("transverse", "spiral", "oblique", "comminuted")
TRUE = (*TOLD[:3], "hairline")


def typed_study(seed: int = 0, n: int = 60, skill: float = 3.0) -> tuple[Dataset, dict[int, Detections]]:
    """Return images of four types, one of which cannot be told, a third of them healthy, and detections with types."""
    random = np.random.default_rng(seed)
    records, found = [], {}
    for number in range(n):
        kind = str(random.choice(TRUE, p=[0.5, 0.25, 0.15, 0.1]))
        healthy = number % 3 == 2
        one = record(number, () if healthy else (0,), group=f"patient{number // 2}")
        records.append(one if healthy else replace(one, attributes={"type": kind}, types=(kind,)))
        rows = random.dirichlet(np.where(np.array(TOLD) == kind, skill, 0.6), int(random.integers(0, 3)))
        places = [box(int(random.choice([0, 4]))) for _ in rows]
        scores = random.uniform(0.1, 1, len(rows))
        found[number] = (
            Detections.from_unsorted(places, scores, [0] * len(rows), rows) if len(rows) else Detections.empty()
        )
    return Dataset(tuple(records), ("fracture",)), found


@lru_cache
def typed_report() -> Report:
    """Return the report, with a confidence that validation data gave."""
    study, found = typed_study()
    report = evaluate(study, found, type_names=TOLD, n_bootstrap=30)
    assert report.types is not None
    frozen = TypeThreshold("accuracy", 0.8, 40, 0.45, 0.82, 0.6)
    answers = answers_of(study.records, found, TOLD)
    again = evaluate_types(answers, frozen, n_bootstrap=30, seed=0, chosen_on="val.json")
    return replace(report, types=replace(again, rows=report.types.rows))


def types_of(report: Report) -> Types:
    """Return the types of a report that has them."""
    assert report.types is not None
    return report.types
