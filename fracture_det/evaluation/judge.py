"""From a data set and predictions to a Report. It never sees a model, so that every detector meets the same judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fracture_det.data.records import Dataset
from fracture_det.detections import Detections
from fracture_det.evaluation import metrics, tables
from fracture_det.evaluation.bootstrap import LEVEL, Floats, Measured, measure
from fracture_det.evaluation.coco import MAX_DETECTIONS, CocoResult, coco_result
from fracture_det.evaluation.matching import Matches, match_dataset
from fracture_det.evaluation.report import Estimate, Report
from fracture_det.predictions import Predictions, align

# The paper calls a box a fracture from this confidence on.
PAPER_SCORE = 0.5
MAX_CURVE_POINTS = 1000


class EvaluationError(ValueError):
    """The predictions do not fit the data set, or a score is none; the message names the image or the value."""


def evaluate(
    dataset: Dataset,
    predictions: Mapping[int, Detections],
    *,
    iou: float = 0.5,
    operating_score: float | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
    failures: Mapping[int, str] | None = None,
    about: Mapping[str, str] | None = None,
    timing: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Report:
    """Evaluate predictions, by image id, against the truth of a data set.

    iou: overlap from which a box hits, for precision, recall and FROC (COCO's figures have their own).
    operating_score: 0..1, chosen elsewhere, never on this data; the paper's .5 when None, and always beside it.
    failures: image id -> error, for images without a prediction; they are counted and left out of every figure.
    about, timing: stated by the caller and kept in the report.

    Raises EvaluationError when an image has neither a prediction nor a failure, or is not in the data set, and for a
    score outside 0..1.
    """
    if operating_score is not None and not 0 <= operating_score <= 1:
        raise EvaluationError(f"operating_score: expected 0..1, got {operating_score}")
    failed = dict(failures or {})
    _check(dataset, predictions, failed)
    points = {"operating point": PAPER_SCORE if operating_score is None else float(operating_score)}
    if points["operating point"] != PAPER_SCORE:
        points["paper"] = PAPER_SCORE
    matches = match_dataset(dataset, predictions, iou=iou)
    at_half = matches if iou == 0.5 else match_dataset(dataset, predictions)
    coco = coco_result(dataset, predictions)
    measured = measure(
        lambda weights: _statistics(matches, at_half, points, weights),
        matches.group,
        n_bootstrap=n_bootstrap,
        seed=seed,
        progress="bootstrap" if progress else None,
    )
    rows = [tables.operating_point(name, score, matches, measured) for name, score in points.items()]
    report = Report(
        about=dict(about or {}),
        settings={"iou": iou, "seed": seed, "n_bootstrap": n_bootstrap, "level": LEVEL},
        counts=_counts(dataset, failed, matches),
        coco=tables.coco_figures(coco, measured["AP50"], matches.n_truth),
        image={"AUROC": tables.auroc(matches, measured["AUROC"])},
        froc=tables.froc(matches, measured),
        operating_points=tuple(rows),
        sites=tables.sites(_sites(dataset, predictions), (matches, at_half), rows[0].score, (n_bootstrap, seed)),
        curves=_curves(matches, coco),
        failures={record.file_name: failed[record.image_id] for record in dataset if record.image_id in failed},
        timing=timing,
    )
    return replace(report, notes=_notes(report, measured, predictions))


def evaluate_predictions(
    dataset: Dataset,
    predictions: Predictions,
    *,
    operating_score: float | None = None,
    about: Mapping[str, str] | None = None,
    **options: Any,
) -> Report:
    """Evaluate the content of a predictions file; further options as in `evaluate`.

    operating_score: 0..1; when None, the one that the predictions state, else the paper's .5.

    Raises PredictionsError when the predictions do not fit the data set; see `align`.
    """
    aligned = align(predictions, dataset)
    stated = predictions.operating_score
    source = "given" if operating_score is not None else "the detector's own" if stated is not None else "the paper's"
    report = evaluate(
        dataset,
        aligned.detections,
        operating_score=stated if operating_score is None else operating_score,
        failures=aligned.failures,
        about={**(about or {}), "detector": predictions.detector, "operating score": source},
        **options,
    )
    if not aligned.not_asked:
        return report
    ignored = f"{aligned.not_asked} predicted images are not in this data set and were left out."
    return replace(report, notes=(*report.notes, ignored))


def _check(dataset: Dataset, predictions: Mapping[int, Detections], failures: Mapping[int, str]) -> None:
    for record in dataset:
        if (record.image_id in predictions) == (record.image_id in failures):
            both = "both a prediction and a failure" if record.image_id in failures else "no prediction"
            raise EvaluationError(f"{record.file_name} (image id {record.image_id}): {both}")
    unknown = (set(predictions) | set(failures)) - {record.image_id for record in dataset}
    if unknown:
        raise EvaluationError(f"image id {min(unknown)}: predicted, but not in the data set")
    for record in dataset:
        labels = predictions[record.image_id].classes if record.image_id in predictions else ()
        if any(not 0 <= label < len(dataset.class_names) for label in labels):
            raise EvaluationError(f"{record.file_name}: class index outside 0..{len(dataset.class_names) - 1}")


def _statistics(matches: Matches, at_half: Matches, points: Mapping[str, float], weights: Floats) -> dict[str, float]:
    """Return every figure that gets an interval."""
    froc = metrics.froc_curve(matches, weights).at()
    values = {
        "AP50": metrics.average_precision(at_half, weights),
        "AUROC": metrics.auroc(matches.top_score, matches.fractured, weights),
        "FROC mean": float(froc.mean()),
    }
    values |= {f"FROC@{target:g}": float(value) for target, value in zip(metrics.FROC_TARGETS, froc, strict=True)}
    for name, score in points.items():
        lesions = metrics.lesion_counts(matches, score, weights)
        images = metrics.image_counts(matches, score, weights)
        values |= {
            f"{name}: precision": lesions.precision,
            f"{name}: recall": lesions.recall,
            f"{name}: f1": lesions.f1,
        }
        values |= {
            f"{name}: sensitivity": images.sensitivity,
            f"{name}: specificity": images.specificity,
            f"{name}: accuracy": images.accuracy,
        }
    return values


def _sites(dataset: Dataset, predictions: Mapping[int, Detections]) -> list[str | None]:
    judged = [record for record in dataset if record.image_id in predictions]
    return [record.site for record in sorted(judged, key=lambda record: record.image_id)]


def _counts(dataset: Dataset, failures: Mapping[int, str], matches: Matches) -> dict[str, int]:
    failed = [record for record in dataset if record.image_id in failures]
    n_fractured = int(matches.fractured.sum())
    return {
        "images_asked": len(dataset),
        "images_predicted": matches.n_images,
        "images_failed": len(failed),
        "images_failed_fractured": sum(record.fractured for record in failed),
        "images_fractured": n_fractured,
        "images_healthy": matches.n_images - n_fractured,
        "groups": matches.n_groups,
        "boxes_truth": matches.n_truth,
        "boxes_predicted": len(matches.score),
    }


def _curves(matches: Matches, coco: CocoResult) -> dict[str, dict[str, list[float]]]:
    curves = {}
    if matches.n_truth:
        curves["pr"] = _listed(recall=coco.recall, precision=coco.precision)
        froc = metrics.froc_curve(matches)
        rises = np.flatnonzero(np.diff(froc.sensitivity) > 0)  # both ends of each step, and the last point
        corners = np.unique([0, *rises, *(rises + 1), len(froc.sensitivity) - 1])
        curves["froc"] = _listed(fp_per_image=froc.fp_per_image[corners], sensitivity=froc.sensitivity[corners])
    if 0 < matches.fractured.sum() < matches.n_images:
        false_share, true_share = metrics.roc_curve(matches)
        curves["roc"] = _listed(one_minus_specificity=false_share, sensitivity=true_share)
    return curves


def _listed(**columns: Floats) -> dict[str, list[float]]:
    """Return columns as lists, thinned to so many points that a figure cannot show the difference."""
    length = len(next(iter(columns.values())))
    keep = np.unique(np.linspace(0, length - 1, min(length, MAX_CURVE_POINTS)).round().astype(int))
    return {name: np.round(column[keep], 6).tolist() for name, column in columns.items()}


def _notes(report: Report, measured: Mapping[str, Measured], predictions: Mapping[int, Detections]) -> tuple[str, ...]:
    counts, notes = report.counts, []
    if counts["images_failed"]:
        notes.append(
            f"{counts['images_failed']} of {counts['images_asked']} images could not be predicted, "
            f"{counts['images_failed_fractured']} of them fractured. They are in no figure of this report; "
            "they are not counted as without fracture."
        )
    if counts["groups"] < 2:
        notes.append(f"No intervals: {counts['groups']} group, and the bootstrap draws groups.")
    elif counts["groups"] == counts["images_predicted"]:
        notes.append("Every image is a group of its own: the intervals take the images as independent.")
    notes += [f"{name} is not defined: {reason}." for name, reason in _undefined(report)]
    for name, one in measured.items():
        if one.undefined:
            notes.append(f"{name}: not defined in {one.undefined} resamples, which are not in its interval.")
    ends = report.curves.get("froc", {}).get("fp_per_image", [0.0])[-1]
    if counts["boxes_truth"] and ends < metrics.FROC_TARGETS[-1]:
        notes.append(f"The detector gives at most {ends:.3g} false positives per image; FROC is flat beyond.")
    crowded = sum(len(found) > MAX_DETECTIONS for found in predictions.values())
    if crowded:
        notes.append(
            f"{crowded} images have over {MAX_DETECTIONS} boxes; the surest {MAX_DETECTIONS} of a class count."
        )
    return tuple(notes)


def _undefined(report: Report) -> list[tuple[str, str]]:
    named: list[tuple[str, Estimate]] = [*report.coco.items(), *report.image.items(), ("FROC", report.froc.mean)]
    for point in report.operating_points:
        named += [(f"{point.name}: {name}", figure) for name, figure in point.figures.items()]
    return [(name, figure.reason) for name, figure in named if figure.reason is not None]
