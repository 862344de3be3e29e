"""One whole evaluation: predict, fix thresholds on validation data, evaluate on test data, measure robustness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.operating_points import check_apart, check_fitted_apart
from fracture_det.calibration.score_maps import DEFAULT_METHOD
from fracture_det.calibration.type_threshold import ACCURACY, COVERAGE, DEFAULT_ACCURACY
from fracture_det.data.coco import read_coco
from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import Predictions, align, read_predictions
from fracture_det.data.records import Dataset
from fracture_det.evaluation.error_analysis import write_match_csv
from fracture_det.evaluation.estimates import PREVALENCES
from fracture_det.evaluation.evaluator import evaluate_predictions
from fracture_det.evaluation.provenance import CALIBRATION, provenance
from fracture_det.evaluation.report import Report
from fracture_det.evaluation.robustness import measure_robustness
from fracture_det.evaluation.usable import check_predicted, check_truth
from fracture_det.evaluation.validation import freeze
from fracture_det.inference.base import Detector
from fracture_det.inference.batch import Screening, predict_to_file
from fracture_det.inference.prediction_folder import overlay_timer
from fracture_det.inference.registry import open_detector
from fracture_det.structures.timing import Timing
from fracture_det.suitability.assess import assess

MAX_NAMED = 20
PREDICTIONS_FILE, VALIDATION_FILE, CALIBRATION_FILE = (
    "predictions.jsonl",
    "validation_predictions.jsonl",
    "calibration.json",
)


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of tools/eval.py, which explains them: one of `detector` and `predictions`; files by path.

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
    type_accuracy: float | None = None
    type_coverage: float | None = None
    operating_score: float | None = None
    prevalence: tuple[float, ...] = PREVALENCES
    robustness: bool = False
    robustness_images: int | None = None
    seed: int = 0
    bootstrap: int = 2000

    @property
    def type_target(self) -> tuple[str, float]:
        """The rule and the target of the confidence from which a type of fracture is told."""
        if self.type_coverage is not None:
            return COVERAGE, self.type_coverage
        return ACCURACY, DEFAULT_ACCURACY if self.type_accuracy is None else self.type_accuracy


def run_evaluation(options: EvaluationOptions, *, progress: bool = False) -> Report:
    """Evaluate, and return the Report; `fracture_det.reporting.writer` writes its pages.

    `options.out` gets report.json, predictions.jsonl, matches.csv, and with `val` its predictions and calibration.json.
    Raises ValueErrors that name file, field and value, and OSError for unwritable folders.
    """
    test = read_coco(options.data)
    check_truth(test, options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    detector = open_detector(options.detector) if options.detector else None
    calibration = _calibration(options, test, detector)
    predictions, timing = _predictions(options, test, detector, options.predictions, PREDICTIONS_FILE)
    check_predicted(test, align(predictions, test), options.data)
    files = {
        "validation": options.val,
        CALIBRATION: _calibration_path(options),
        "predictions": options.out / PREDICTIONS_FILE,
    }
    report = evaluate_predictions(
        test,
        predictions,
        operating_score=options.operating_score,
        calibration=calibration,
        prevalences=options.prevalence,
        n_bootstrap=options.bootstrap,
        seed=options.seed,
        about={**predictions.about, **provenance(data=options.data, **files)},
        timing=timing,
        progress=progress,
    )
    report = replace(report, notes=[*report.notes, *unsuitable_notes(test, predictions)])
    report.save(options.out)  # robustness may take hours
    if detector is not None and options.robustness and options.images is not None:
        robustness = measure_robustness(
            detector,
            test,
            options.images,
            max_images=options.robustness_images,
            cache=options.out / "robustness",
            batch_size=options.batch_size,
            n_bootstrap=options.bootstrap,
            seed=options.seed,
            progress=progress,
        )
        report = replace(report, robustness=robustness.rows, notes=[*report.notes, *robustness.notes])
        report.save(options.out)
    write_match_csv(
        test,
        align(predictions, test).detections,
        options.out / "matches.csv",
        score=report.operating_points[0].score,
        progress=progress,
    )
    return report


def unsuitable_notes(dataset: Dataset, predictions: Predictions) -> list[str]:
    """Return a sentence about the images of a data set that do not look like limb radiographs, if there are any."""
    names = {record.file_name for record in dataset}
    found = [
        f"{image.file_name} ({image.unsuitable})"
        for image in predictions.images
        if image.unsuitable is not None and image.detections is not None and image.file_name in names
    ]
    if not found:
        return []
    shown = ", ".join(found[:MAX_NAMED]) + (", ..." if len(found) > MAX_NAMED else "")
    return [
        f"{len(found)} of {len(dataset)} images do not look like limb radiographs: the page and predict would refuse"
        f" them. They are evaluated all the same: {shown}."
    ]


def _predictions(
    options: EvaluationOptions, dataset: Dataset, detector: Detector | None, given: Path | None, name: str
) -> tuple[Predictions, Timing | None]:
    """Return the predictions of a data set, made now or given, and keep them in the output folder as `name`."""
    path = options.out / name
    if detector is None or options.images is None:
        if given is None:
            raise ValueError("either a detector with its images, or predictions are needed")
        predictions = read_predictions(given)
        write_predictions(path, predictions)
        return predictions, None
    files = [(record.file_name, options.images / record.file_name) for record in dataset]
    run = predict_to_file(
        detector,
        files,
        path,
        batch_size=options.batch_size,
        on_file=overlay_timer(detector),
        screening=Screening(assess, analysed=True),  # the truth says what it shows
    )
    return read_predictions(path), run.as_timing()


def _calibration_path(options: EvaluationOptions) -> Path | None:
    return options.out / CALIBRATION_FILE if options.val else options.calibration


def _calibration(options: EvaluationOptions, test: Dataset, detector: Detector | None) -> Calibration | None:
    """Return the given calibration, or the one fitted on validation data, which is kept in the output folder."""
    if options.val is None:
        calibration = Calibration.load(options.calibration) if options.calibration else None
        if calibration is not None:  # checked again where it is applied, but only after all images were predicted
            check_fitted_apart(calibration.fitted_on, test)
        return calibration
    validation = read_coco(options.val)
    check_truth(validation, options.val)
    check_apart(validation, test)
    given = options.val_predictions or options.predictions
    predictions, _ = _predictions(options, validation, detector, given, VALIDATION_FILE)
    check_predicted(validation, align(predictions, validation), options.val)
    about = {"data": options.val.name, **predictions.about}
    calibration = freeze(
        validation,
        predictions,
        test=test,
        method=options.calibration_method,
        fp_target=options.fp_target,
        about=about,
        type_target=options.type_target,
    )
    calibration.save(options.out / CALIBRATION_FILE)
    return calibration
