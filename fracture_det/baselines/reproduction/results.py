"""From the runs' files to reproduction.json and its page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fracture_det.baselines.reproduction.study import Budget, ReproductionOptions, Run, Study
from fracture_det.data.coco import read_coco
from fracture_det.data.predictions import align, read_predictions
from fracture_det.evaluation.comparison import Difference, compare
from fracture_det.evaluation.pipeline import PREDICTIONS_FILE
from fracture_det.evaluation.provenance import DETECTOR, provenance
from fracture_det.evaluation.report import ANATOMY, Estimate, Report
from fracture_det.inference.stage_timer import machine_name
from fracture_det.reporting.reproduction import (
    ABLATION,
    MODEL,
    BodyPart,
    OtherTest,
    Reproduction,
    TrainedModel,
)
from fracture_det.reporting.reproduction_page import write_reproduction
from fracture_det.training.hooks import METRICS_FILE

MATCH_RULE = "iou50"
# Points of a loss curve that are kept; more do not show in a panel of this size.
MOST_POINTS = 300


def write_results(
    study: Study,
    runs: Sequence[Run],
    options: ReproductionOptions,
    *,
    budget: Budget,
    speed: Mapping[str, Mapping[str, float]],
    data: Path,
    failures: Mapping[str, str],
) -> Reproduction:
    """Collect what the finished `runs` left, write reproduction.json and its page into `options.out`, and return it."""
    by_model = {model.name: [run for run in runs if run.model == model] for model in study.all}
    chosen = [members[0] for members in by_model.values() if members]
    reports = {run.name: Report.load(options.out / "reports" / run.name) for run in runs}
    differences = _differences(chosen, reports, options, data)
    models = [
        _trained(run, by_model[run.model.name], reports, options, study, speed.get(run.model.name), differences)
        for run in chosen
    ]
    result = Reproduction(
        about=_about(options, budget, data),
        synthetic=options.quick,
        counts=reports[chosen[0].name].counts,
        models=models,
        paper_body_parts=study.paper_body_parts,
        failures=dict(failures),
    )
    write_reproduction(result, options.out)
    return result


def _about(options: ReproductionOptions, budget: Budget, data: Path) -> dict[str, str]:
    name = "synthetic radiographs" if options.quick else data.name
    form = {"full": "the paper's models", "small": "small models on one shared backbone, for CPUs"}[options.chosen_form]
    return {
        "radiographs": name,
        "models": form,
        "budget": str(budget),
        "machine": machine_name(),
        **provenance(data=data / "test.json"),
    }


def _differences(
    chosen: Sequence[Run], reports: Mapping[str, Report], options: ReproductionOptions, data: Path
) -> dict[str, dict[str, Difference]]:
    """Return the first run minus every other, by its name and by figure."""
    if len(chosen) < 2:
        return {}
    dataset = read_coco(data / "test.json")
    folder = options.out / "reports"
    detections = {
        run.name: align(read_predictions(folder / run.name / PREDICTIONS_FILE), dataset).detections for run in chosen
    }
    scores = {run.name: reports[run.name].operating_points[0].score for run in chosen}
    comparison = compare(dataset, detections, scores, n_bootstrap=options.bootstrap)
    return {pair.other: pair.differences for pair in comparison.pairs}


def _trained(
    run: Run,
    members: Sequence[Run],
    reports: Mapping[str, Report],
    options: ReproductionOptions,
    study: Study,
    fps: Mapping[str, float] | None,
    differences: Mapping[str, dict[str, Difference]],
) -> TrainedModel:
    report = reports[run.name]
    point = report.operating_points[0]
    history = _history(options.out / "runs" / run.name)
    training = _points(history, "total_loss")
    iterations = int(max((x for x, _ in training), default=0))
    return TrainedModel(
        name=run.model.name,
        title=run.model.title,
        kind=MODEL if run.model in study.models else ABLATION,
        detector=report.about.get(DETECTOR, run.name),
        report=f"reports/{run.name}/report.html",
        rule=point.rule,
        score=point.score,
        figures={**{name: point.lesion[name] for name in ("precision", "recall")}, **_figures(report)},
        fps=None if fps is None else Estimate(fps["value"], fps["low"], fps["high"]),
        paper=run.model.paper,
        differences=differences.get(run.name, {}),
        ap50_by_seed=[reports[member.name].coco["AP50"].value for member in members],
        iterations=iterations,
        hours=_hours(history),
        body_parts=[
            BodyPart(row.value, row.n_images, row.n_boxes, row.figures)
            for row in report.strata
            if row.column == ANATOMY
        ],
        pr=report.curves["pr"],
        training=_thinned(training),
        validation=_points(history, "validation_loss", last=iterations),
        ap50=[(x, y / 100) for x, y in _points(history, "bbox/AP50", last=iterations)],
        other_tests=[_other(run, number, text, options) for number, text in enumerate(options.other_tests, start=1)],
    )


def _figures(report: Report) -> dict[str, Estimate]:
    froc = report.froc[MATCH_RULE]
    at_one = froc.sensitivity[froc.fp_per_image.index(1.0)]
    return {"AP50": report.coco["AP50"], "AUROC": report.image["AUROC"], "FROC@1": at_one}


def _other(run: Run, number: int, text: str, options: ReproductionOptions) -> OtherTest:
    report = Report.load(options.out / "reports" / f"{run.name}_other{number}")
    path = Path(text.rpartition("@")[0])
    return OtherTest(f"{path.parent.name}/{path.name}", _figures(report))


def _history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines()]


def _points(history: Sequence[Mapping[str, Any]], key: str, *, last: float = math.inf) -> list[tuple[float, float]]:
    """Return (iterations done, value) of a metric, the later of two lines of one iteration.

    last: of the training; Detectron2 counts the evaluation after it as one more.
    """
    values = {min(int(line["iteration"]) + 1, last): float(line[key]) for line in history if line.get(key) is not None}
    return sorted((float(x), y) for x, y in values.items() if y == y)  # not NaN


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most MOST_POINTS points, each the mean of its neighbours."""
    step = -(-len(points) // MOST_POINTS) or 1
    groups = [points[start : start + step] for start in range(0, len(points), step)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _hours(history: Sequence[Mapping[str, Any]]) -> float:
    """Return the hours of all training steps: each line's median seconds per iteration, times its iterations."""
    seconds, done = 0.0, 0
    for line in history:
        iteration = int(line["iteration"]) + 1
        if "time" in line and iteration > done:
            seconds += float(line["time"]) * (iteration - done)
            done = iteration
    return seconds / 3600
