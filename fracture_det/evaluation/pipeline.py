"""One whole evaluation: predict, freeze thresholds on validation data, judge on test data, look closer, publish."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.operating_points import check_apart, check_fitted_apart
from fracture_det.calibration.score_maps import DEFAULT_METHOD
from fracture_det.data.coco import read_coco
from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import Predictions, align, read_predictions
from fracture_det.data.records import Dataset
from fracture_det.evaluation.error_analysis import write_match_csv
from fracture_det.evaluation.estimates import PREVALENCES
from fracture_det.evaluation.evaluator import evaluate_predictions
from fracture_det.evaluation.provenance import provenance
from fracture_det.evaluation.report import Report
from fracture_det.evaluation.robustness import measure_robustness
from fracture_det.evaluation.validation import freeze
from fracture_det.inference.base import Detector
from fracture_det.inference.batch import predict_to_file
from fracture_det.inference.prediction_folder import overlay_timer
from fracture_det.inference.registry import open_detector
from fracture_det.reporting import gallery
from fracture_det.reporting.writer import publish
from fracture_det.structures.timing import Timing

PREDICTIONS_FILE, VALIDATION_FILE, CALIBRATION_FILE = (
    "predictions.jsonl",
    "validation_predictions.jsonl",
    "calibration.json",
)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is to be evaluated, as tools/eval.py explains it: one of `detector` and `predictions`; files by path.

    Thresholds and calibration come from `val` (fitted) or `calibration` (a file), at most one of them.
    """

    data: Path
    out: Path
    detector: str | None = None
    predictions: Path | None = None
    images: Path | None = None
    batch_size: int = 1
    val: Path | None = None
    val_predictions: Path | None = None
    calibration: Path | None = None
    calibration_method: str = DEFAULT_METHOD
    fp_target: float = 1.0
    operating_score: float | None = None
    prevalence: tuple[float, ...] = PREVALENCES
    robustness: bool = False
    robustness_images: int | None = None
    seed: int = 0
    bootstrap: int = 2000


def run_evaluation(task: EvaluationOptions, *, progress: bool = False) -> Report:
    """Do the whole evaluation, write everything into `task.out`, and return the Report.

    Raises ValueErrors of the rooms that it calls, which name file, field and value, and OSError for unwritable folders.
    """
    test = read_coco(task.data)
    task.out.mkdir(parents=True, exist_ok=True)
    detector = open_detector(task.detector) if task.detector else None
    calibration = _calibration(task, test, detector)
    predictions, timing = _predictions(task, test, detector, task.predictions, PREDICTIONS_FILE)
    files = {"validation": task.val, "calibration": _calibration_path(task), "predictions": task.out / PREDICTIONS_FILE}
    report = evaluate_predictions(
        test,
        predictions,
        operating_score=task.operating_score,
        calibration=calibration,
        prevalences=task.prevalence,
        n_bootstrap=task.bootstrap,
        seed=task.seed,
        about={**predictions.about, **provenance(data=task.data, **files)},
        timing=timing,
        progress=progress,
    )
    report.save(task.out)  # what follows may take hours, or fail on a picture
    if detector is not None and task.robustness and task.images is not None:
        withstood = measure_robustness(
            detector,
            test,
            task.images,
            max_images=task.robustness_images,
            cache=task.out / "robustness",
            batch_size=task.batch_size,
            n_bootstrap=task.bootstrap,
            seed=task.seed,
            progress=progress,
        )
        report = replace(report, robustness=withstood.rows, notes=[*report.notes, *withstood.notes])
    notes = _look_closer(task, test, predictions, report, progress)
    report = replace(report, notes=[*report.notes, *notes])
    publish(report, task.out)
    return report


def _predictions(
    task: EvaluationOptions, dataset: Dataset, detector: Detector | None, given: Path | None, name: str
) -> tuple[Predictions, Timing | None]:
    """Return the predictions of a data set, made now or given, and leave them in the output folder under `name`."""
    path = task.out / name
    if detector is None or task.images is None:
        if given is None:
            raise ValueError("either a detector with its images, or predictions are needed")
        predictions = read_predictions(given)
        write_predictions(path, predictions)
        return predictions, None
    files = [(record.file_name, task.images / record.file_name) for record in dataset]
    run = predict_to_file(detector, files, path, batch_size=task.batch_size, each=overlay_timer(detector))
    return read_predictions(path), run.as_timing()


def _calibration_path(task: EvaluationOptions) -> Path | None:
    return task.out / CALIBRATION_FILE if task.val else task.calibration


def _calibration(task: EvaluationOptions, test: Dataset, detector: Detector | None) -> Calibration | None:
    """Return the calibration that is named, or that validation data give; the latter is kept in the output folder."""
    if task.val is None:
        calibration = Calibration.load(task.calibration) if task.calibration else None
        if calibration is not None:  # asked again where it is applied, but that is after all images were predicted
            check_fitted_apart(calibration.fitted_on, test)
        return calibration
    validation = read_coco(task.val)
    check_apart(validation, test)
    given = task.val_predictions or task.predictions
    predictions, _ = _predictions(task, validation, detector, given, VALIDATION_FILE)
    about = {"data": task.val.name, **predictions.about}
    calibration = freeze(
        validation, predictions, test=test, method=task.calibration_method, fp_target=task.fp_target, about=about
    )
    calibration.save(task.out / CALIBRATION_FILE)
    return calibration


def _look_closer(
    task: EvaluationOptions, test: Dataset, predictions: Predictions, report: Report, progress: bool
) -> list[str]:
    """Write what has a row or a picture for every box; return what a reader must know of it."""
    found = align(predictions, test).detections
    write_match_csv(test, found, task.out / "matches.csv", score=report.operating_points[0].score, progress=progress)
    try:
        if task.images is not None:
            gallery.draw_gallery(report.errors.gallery, test, task.images, task.out)
    except ValueError as error:  # a picture that is gone by now takes no figure with it
        shutil.rmtree(task.out / gallery.FOLDER, ignore_errors=True)  # an earlier run's would show other boxes
        reason = str(error).replace(f"{task.images}/", "")  # a report that is published names no folder of this machine
        return [f"There are no galleries: {reason}."]
    return []
