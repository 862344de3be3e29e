"""From a data set and predictions to a Report. It never sees a model: every detector is evaluated by the same code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE, RULES, check_fitted_apart
from fracture_det.data.predictions import Predictions, align
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation import estimates
from fracture_det.evaluation.bootstrap import LEVEL, Floats, bootstrap_intervals
from fracture_det.evaluation.coco_eval import CocoMatches, coco_matches
from fracture_det.evaluation.error_analysis import find_errors
from fracture_det.evaluation.estimates import Level, Results, Statistic, Threshold, Values
from fracture_det.evaluation.froc import FROC_TARGETS, froc_curve
from fracture_det.evaluation.image_level import UnitScores, groups_of, images_of, precision_recall_curve, roc_curve
from fracture_det.evaluation.matching import MATCH_RULES, MAX_DETECTIONS, Matches, match_dataset, shared_records
from fracture_det.evaluation.reliability import reliability
from fracture_det.evaluation.report import Curve, Estimate, Report, froc_curve_name
from fracture_det.evaluation.strata import by_box_size, left_out, strata
from fracture_det.evaluation.type_report import evaluated_types
from fracture_det.structures.detections import Detections
from fracture_det.structures.timing import Timing

# The rule of precision, recall and F1, of the strata and of the error types.
MAIN_RULE = "iou50"
MAX_CURVE_POINTS = 1000


class EvaluationError(ValueError):
    """The predictions do not fit the data set, or a score is none; the message names the image or the value."""


@dataclass(frozen=True, eq=False)
class MatchedDataset:
    """Predictions matched once to the truth, so that each bootstrap resample only has to count.

    matches: by match rule.
    """

    matches: Mapping[str, Matches]
    coco: CocoMatches
    images: UnitScores
    groups: UnitScores
    thresholds: Sequence[Threshold]
    prevalences: Sequence[float]

    @property
    def main(self) -> Matches:
        """The matches of the main rule."""
        return self.matches[MAIN_RULE]

    @property
    def units(self) -> dict[Level, UnitScores]:
        """Images and groups, by their level."""
        return {"image": self.images, "group": self.groups}

    def statistics(self, weights: Floats) -> Values:
        """Return every statistic that gets an interval, for image weights (I,)."""
        values: Values = {Statistic(name): value for name, value in self.coco.figures(weights).items()}
        for rule, matches in self.matches.items():
            values |= estimates.froc_statistics(rule, matches, weights)
        for level, units in self.units.items():
            values |= estimates.area_statistics(level, units, weights)
        for threshold in self.thresholds:
            values |= estimates.point_statistics(threshold, self.main, self.units, self.prevalences, weights)
        return values


def evaluate(
    dataset: Dataset,
    predictions: Mapping[int, Detections],
    *,
    operating_score: float | None = None,
    detector_score: float | None = None,
    calibration: Calibration | None = None,
    prevalences: Sequence[float] = estimates.PREVALENCES,
    n_bootstrap: int = 2000,
    seed: int = 0,
    failures: Mapping[int, str] | None = None,
    about: Mapping[str, str] | None = None,
    timing: Timing | None = None,
    progress: bool = False,
    type_names: Sequence[str] = (),
) -> Report:
    """Evaluate predictions, by image id, with raw scores, against the truth of a data set.

    operating_score: 0..1, chosen elsewhere, never on this data; it becomes the main operating point.
    detector_score: the detector's own operating score, if it states one.
    calibration: fitted on validation data by `fit_calibration`; its operating points are applied, and the
    reliability of the scores is reported before and after it. The paper's .5 is always reported.
    prevalences: shares of fractured images (0..1) at which PPV and NPV are stated.
    failures: image id -> error, for images without a prediction; they are counted and excluded from every figure.
    about, timing: stated by the caller and kept in the report.
    type_names: what the columns of `Detections.types` are; () for a detector that tells no types of fracture.

    Raises EvaluationError when an image has neither a prediction nor a failure, or is not in the data set, and for a
    score or a prevalence outside 0..1; OperatingPointError when the calibration was fitted on images of this data set;
    TypeNameError for a type that the house does not list.
    """
    failed = dict(failures or {})
    _check_shares({"operating_score": operating_score, "detector_score": detector_score}, prevalences)
    _check(dataset, predictions, failed)
    if calibration is not None:
        check_fitted_apart(calibration.fitted_on, dataset)
    thresholds = list(_thresholds(operating_score, detector_score, calibration))
    matches = {rule: match_dataset(dataset, predictions, rule=rule) for rule in MATCH_RULES}
    main = matches[MAIN_RULE]
    matched = MatchedDataset(
        matches,
        coco_matches(dataset, predictions, progress="matching" if progress else None),
        images_of(main),
        groups_of(main),
        thresholds,
        tuple(prevalences),
    )
    resampling: dict[str, Any] = {"n_bootstrap": n_bootstrap, "seed": seed}
    title = "bootstrap" if progress else None
    results = bootstrap_intervals(matched.statistics, main.group, progress=title, **resampling)
    records = shared_records(dataset, predictions)
    main_score = thresholds[0].score
    report = Report(
        about=dict(about or {}),
        settings={"match_rule": MAIN_RULE, "level": LEVEL, **resampling},
        counts=_counts(dataset, failed, matched),
        coco=estimates.coco_figures(results, main.n_truth),
        froc={rule: estimates.froc(rule, by_rule, results) for rule, by_rule in matches.items()},
        image=estimates.areas("image", matched.images, results),
        group=estimates.areas("group", matched.groups, results),
        operating_points=[
            estimates.operating_point(threshold, main, matched.units, matched.prevalences, results)
            for threshold in thresholds
        ],
        not_reached={} if calibration is None else dict(calibration.not_reached),
        calibration=reliability(main, calibration=calibration, **resampling),
        strata=strata(records, main, by_box_size(dataset, predictions), main_score, progress=progress, **resampling),
        errors=find_errors(dataset, predictions, score=main_score, progress=progress, **resampling),
        curves=_curves(matched),
        failures={record.file_name: failed[record.image_id] for record in dataset if record.image_id in failed},
        timing=timing,
    )
    types, type_notes = evaluated_types(dataset, predictions, type_names, calibration, **resampling)
    notes = [
        *_notes(report, results, predictions),
        *_crowd_notes(main),
        *_calibration_notes(calibration),
        *_left_out_notes(records),
        *type_notes,
        *dataset.notes,
    ]
    return replace(report, notes=notes, types=types)


def evaluate_predictions(
    dataset: Dataset,
    predictions: Predictions,
    *,
    calibration: Calibration | None = None,
    about: Mapping[str, str] | None = None,
    **options: Any,
) -> Report:
    """Evaluate the content of a predictions file; further options as in `evaluate`.

    Raises PredictionsError when the predictions do not fit the data set (see `align`), and CalibrationError when the
    calibration was fitted for another detector.
    """
    if calibration is not None:
        calibration.check_detector(predictions.detector, predictions.weights_sha256)
    aligned = align(predictions, dataset)
    report = evaluate(
        dataset,
        aligned.detections,
        detector_score=predictions.operating_score,
        failures=aligned.failures,
        calibration=calibration,
        about={"detector": predictions.detector, **(about or {})},
        type_names=predictions.type_names,
        **options,
    )
    notes = [*report.notes, *predictions.notes, *aligned.notes]
    if aligned.not_asked:
        notes.append(f"{aligned.not_asked} predicted images are not in this data set and were ignored.")
    return replace(report, notes=notes)


def _thresholds(given: float | None, detector: float | None, calibration: Calibration | None) -> Iterator[Threshold]:
    """Yield the operating points, the main one first; each score comes once under its first name."""
    if given is not None:
        yield Threshold("given", float(given), "given by the user; must not have been chosen on this data")
    if detector is not None and detector != PAPER_OPERATING_SCORE:
        yield Threshold("detector", float(detector), "stated by the detector")
    if calibration is not None:
        chosen_on = calibration.fitted_on.get("data", "validation data")
        for rule in RULES:
            if rule in calibration.operating_points:
                score = float(calibration.operating_points[rule])
                yield Threshold(rule, score, f"chosen on {chosen_on}", chosen_on)
    yield Threshold("paper", PAPER_OPERATING_SCORE, "fixed by the paper")


def _check_shares(scores: Mapping[str, float | None], prevalences: Sequence[float]) -> None:
    for name, value in scores.items():
        if value is not None and not 0 <= value <= 1:
            raise EvaluationError(f"{name}: expected 0..1, got {value}")
    for value in prevalences:
        if not 0 < value < 1:
            raise EvaluationError(f"prevalences: expected each above 0 and below 1, got {value}")


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


def _counts(dataset: Dataset, failures: Mapping[int, str], matched: MatchedDataset) -> dict[str, int]:
    failed = [record for record in dataset if record.image_id in failures]
    n_fractured = int(matched.images.positive.sum())
    return {
        "images_asked": len(dataset),
        "images_predicted": matched.main.n_images,
        "images_failed": len(failed),
        "images_failed_fractured": sum(record.fractured for record in failed),
        "images_fractured": n_fractured,
        "images_healthy": matched.main.n_images - n_fractured,
        "groups": len(matched.groups.score),
        "groups_fractured": int(matched.groups.positive.sum()),
        "boxes_truth": matched.main.n_truth,
        "boxes_predicted": len(matched.main.score),
    }


def _curves(matched: MatchedDataset) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    if matched.main.n_truth:
        recall, precision = matched.coco.curve()
        curves["pr"] = estimates.curve(recall=recall, precision=precision)
        for rule, matches in matched.matches.items():
            froc = froc_curve(matches)
            rises = np.flatnonzero(np.diff(froc.sensitivity) > 0)  # both ends of each step, and the last point
            corners = np.unique([0, *rises, *(rises + 1), len(froc.sensitivity) - 1])
            curves[froc_curve_name(rule)] = _thin(
                fp_per_image=froc.fp_per_image[corners], sensitivity=froc.sensitivity[corners]
            )
        recall, precision = precision_recall_curve(matched.images)
        curves["image_pr"] = _thin(recall=recall, precision=precision)
    if 0 < matched.images.positive.sum() < matched.main.n_images:
        fpr, tpr = roc_curve(matched.images)
        curves["roc"] = _thin(fpr=fpr, tpr=tpr)
    return curves


def _thin(**columns: Floats) -> Curve:
    """Return columns with at most MAX_CURVE_POINTS points, more than a figure can show."""
    length = len(next(iter(columns.values())))
    keep = np.unique(np.linspace(0, length - 1, min(length, MAX_CURVE_POINTS)).round().astype(int))
    return estimates.curve(**{name: column[keep] for name, column in columns.items()})


def _notes(report: Report, results: Results, predictions: Mapping[int, Detections]) -> Iterator[str]:
    counts = report.counts
    if counts["images_failed"]:
        yield (
            f"{counts['images_failed']} of {counts['images_asked']} images could not be predicted, "
            f"{counts['images_failed_fractured']} of them fractured. They are excluded from every figure and are not "
            "counted as healthy."
        )
    if counts["groups"] < 2:
        yield f"No confidence intervals: the bootstrap needs at least 2 groups, got {counts['groups']}."
    elif counts["groups"] == counts["images_predicted"]:
        yield "Every image is its own group: the confidence intervals assume independent images."
    for name, figure in _headline(report):
        if figure.reason is not None:
            yield f"{name} is not defined: {figure.reason}."
    undefined = {name: result.undefined for name, result in results.items() if result.undefined}
    if undefined:
        worst = max(undefined, key=lambda name: undefined[name])
        yield (
            f"{len(undefined)} figures were not defined in some resamples, which their intervals leave out; "
            f"most often {worst}, in {undefined[worst]} of {report.settings['n_bootstrap']}."
        )
    last_fp_per_image = report.curves.get(froc_curve_name(MAIN_RULE), {}).get("fp_per_image", [0.0])[-1]
    if counts["boxes_truth"] and last_fp_per_image < FROC_TARGETS[-1]:
        yield (
            f"The detector gives at most {last_fp_per_image:.3g} false positives per image; the FROC curve is "
            "constant beyond that."
        )
    crowded = sum(len(detections) > MAX_DETECTIONS for detections in predictions.values())
    if crowded:
        yield (
            f"{crowded} images have more than {MAX_DETECTIONS} boxes; as in COCO, the {MAX_DETECTIONS} highest scores "
            "of each class count."
        )


def _headline(report: Report) -> Iterator[tuple[str, Estimate]]:
    yield "AP50", report.coco["AP50"]
    yield "FROC", report.froc[MAIN_RULE].mean
    yield "AUROC", report.image["AUROC"]
    point = report.operating_points[0]
    for figures in (point.lesion, point.image):
        for name, figure in figures.items():
            yield f"{name} at the operating point", figure


def _crowd_notes(matches: Matches) -> Iterator[str]:
    crowded = matches.n_crowd > 0
    if crowded.any():
        alone = int((crowded & (matches.truth.sum(axis=1) == 0)).sum())
        yield (
            f"Crowd regions (iscrowd): {int(matches.n_crowd.sum())}, on {int(crowded.sum())} of the images. As in COCO "
            f"they are neither truth nor background; predicted boxes ignored in them: {int(matches.n_ignored.sum())}. "
            f"Images with no other mark: {alone}; at the image level they count as fractured."
        )


def _calibration_notes(calibration: Calibration | None) -> Iterator[str]:
    for what, reason in ({} if calibration is None else calibration.not_fitted).items():
        yield f"Scores at the {what} level are not calibrated: {reason}."


def _left_out_notes(records: Sequence[ImageRecord]) -> Iterator[str]:
    for column, reason in left_out(records).items():
        yield f"The metadata column {column!r} is not a subgroup: {reason}."
