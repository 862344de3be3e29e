"""What a report contains for the items of a reporting checklist, with its values; None where it contains nothing."""

from __future__ import annotations

from dataclasses import dataclass

from fracture_det.evaluation.provenance import (
    COMMIT,
    CONFIG,
    DATA,
    DETECTOR,
    PACKAGES,
    SPLIT,
    WEIGHTS,
    digest_key,
)
from fracture_det.evaluation.report import ALL, ANATOMY, RAW, Estimate, Report
from fracture_det.reporting.formatting import (
    column_name,
    format_estimate,
    format_number,
    format_percent,
    method_title,
    point_title,
    rule_title,
    scores_title,
)
from fracture_det.reporting.markdown import code, escaped
from fracture_det.structures.wording import counted


@dataclass(frozen=True)
class ChecklistAnswer:
    """What a report contains for an item. text: Markdown. section: id of the section with it. partly: incomplete."""

    text: str
    section: str
    partly: bool = False


def summary(report: Report) -> ChecklistAnswer:
    return ChecklistAnswer(
        "the report opens with a summary of data and results; design and conclusions are not in it", "summary", True
    )


def sources(report: Report) -> ChecklistAnswer | None:
    data = report.about.get(DATA)
    if data is None:
        return None
    digest = report.about.get(digest_key(DATA))
    text = f"test data {code(data)}" + (f", SHA-256 {code(digest)}" if digest else "")
    return ChecklistAnswer(f"{text}; its origin is not in the report", "provenance", True)


def missing(report: Report) -> ChecklistAnswer:
    counts = report.counts
    text = (
        f"{counts['images_failed']:,} of {counts['images_asked']:,} images could not be predicted, "
        f"{counts['images_failed_fractured']:,} of them fractured; they are excluded from every figure and are not "
        "counted as healthy"
    )
    return ChecklistAnswer(f"{text}; data missing before the evaluation are not in the report", "failures", True)


def split(report: Report) -> ChecklistAnswer | None:
    manifest, chosen_on = report.about.get(SPLIT), _chosen_on(report)
    clauses = [f"split manifest {code(manifest)}"] if manifest else []
    if chosen_on:
        clauses.append(f"thresholds and calibration were chosen on {escaped(chosen_on)} and applied to the test data")
    section = "provenance" if manifest else "operating-points"
    return ChecklistAnswer("; ".join(clauses), section, True) if clauses else None


def _chosen_on(report: Report) -> str | None:
    return next((point.chosen_on for point in report.operating_points if point.chosen_on), None)


def model(report: Report) -> ChecklistAnswer | None:
    names = (DETECTOR, CONFIG, digest_key(WEIGHTS))
    facts = ", ".join(f"{name} {code(report.about[name])}" for name in names if name in report.about)
    return ChecklistAnswer(f"{facts}; the architecture is not in the report", "provenance", True) if facts else None


def software(report: Report) -> ChecklistAnswer | None:
    names = ("fracture_det", "python", *PACKAGES)
    versions = [f"{name} {escaped(report.about[name])}" for name in names if name in report.about]
    return ChecklistAnswer(", ".join(versions), "provenance") if versions else None


def measures(report: Report) -> ChecklistAnswer:
    names = ["COCO AP and AR", "precision, recall and F1 of boxes", "FROC by three match rules"]
    names += ["sensitivity, specificity, PPV, NPV, accuracy, AUROC and AUPRC of images and groups"]
    names += ["ECE, Brier score and reliability diagrams"] if report.calibration else []
    return ChecklistAnswer("; ".join(names), "operating-points")


def uncertainty(report: Report) -> ChecklistAnswer | None:
    resamples = report.settings.get("n_bootstrap")
    if not resamples or report.counts["groups"] < 2:
        return None
    level = format_percent(float(report.settings.get("level", 0.95)))
    text = (
        f"{level} % confidence intervals: BCa bootstrap, {resamples:,} resamples of {report.counts['groups']:,} "
        f"groups, seed {report.settings.get('seed')}; Wilson's intervals of proportions. No significance test"
    )
    return ChecklistAnswer(text, "operating-points")


def clusters(report: Report) -> ChecklistAnswer | None:
    if uncertainty(report) is None:
        return None
    return ChecklistAnswer(
        "the bootstrap resamples whole groups (patients, or copies of one image); subgroups include each body part",
        "strata",
        True,
    )


def robustness(report: Report) -> ChecklistAnswer | None:
    kinds = list(dict.fromkeys(row.perturbation for row in report.robustness if row.strength > 0))
    return ChecklistAnswer(f"AP50 and AUROC under {escaped(', '.join(kinds))}", "robustness") if kinds else None


def flow(report: Report) -> ChecklistAnswer:
    counts = report.counts
    text = (
        f"{counted(counts['images_asked'], 'image')} in the data set, {counts['images_predicted']:,} evaluated, "
        f"{counts['images_failed']:,} failed; {counts['images_fractured']:,} fractured, {counts['images_healthy']:,} "
        f"healthy; {counted(counts['groups'], 'group')}, {counts['groups_fractured']:,} fractured"
    )
    return ChecklistAnswer(f"{text}; earlier exclusions are not in the report", "data", True)


def events(report: Report) -> ChecklistAnswer:
    counts = report.counts
    text = (
        f"evaluation: {counted(counts['images_predicted'], 'image')}, {counts['images_fractured']:,} fractured, with "
        f"{counted(counts['boxes_truth'], 'annotated fracture')}; each figure states its sample"
    )
    return ChecklistAnswer(f"{text}; numbers of training and validation are not in the report", "data", True)


def characteristics(report: Report) -> ChecklistAnswer | None:
    columns = dict.fromkeys(column_name(row.column) for row in report.strata if row.column != ALL)
    if not columns:
        return None
    text = f"numbers of images, fractured images and fractures by {escaped(', '.join(columns))}"
    return ChecklistAnswer(f"{text}; test data only, no other characteristics of the patients", "strata", True)


def performance(report: Report) -> ChecklistAnswer:
    figures = {"AP50": report.coco["AP50"], "AUROC": report.image["AUROC"], **_main_point(report)}
    return ChecklistAnswer(_listed(figures), "boxes")


def by_stratum(report: Report) -> ChecklistAnswer:
    overall = performance(report)
    if characteristics(report) is None:
        return overall
    return ChecklistAnswer(f"{overall.text}; by subgroup in the subgroup analysis", "strata")


def heterogeneity(report: Report) -> ChecklistAnswer | None:
    rows = [row for row in report.strata if row.column == ANATOMY and "AUROC" in row.figures]
    if len(rows) < 2:
        return None
    by_body_part = _listed({escaped(row.value): row.figures["AUROC"] for row in rows})
    return ChecklistAnswer(f"AUROC by body part: {by_body_part}; heterogeneity was not modelled", "strata", True)


def accuracy(report: Report) -> ChecklistAnswer | None:
    figures = _main_point(report)
    if all(figure.value is None for figure in figures.values()):
        return None
    point = escaped(point_title(report.operating_points[0]))
    return ChecklistAnswer(f"{_listed(figures)}, at {point}; PPV and NPV in the same section", "operating-points")


def _main_point(report: Report) -> dict[str, Estimate]:
    image = report.operating_points[0].image
    return {name: image[name] for name in ("sensitivity", "specificity")}


def failure_analysis(report: Report) -> ChecklistAnswer | None:
    errors = report.errors
    if not errors.types:
        return None
    numbers = ", ".join(f"{name} {error.count:,}" for name, error in errors.types.items())
    text = f"error types: {escaped(numbers)}; false positives on healthy images by body part"
    examples = f"; {counted(len(errors.gallery), 'example')} in galleries" if errors.gallery else ""
    return ChecklistAnswer(text + examples, "errors")


def notes(report: Report) -> ChecklistAnswer | None:
    if not report.notes:
        return None
    text = f"{counted(len(report.notes), 'note')} on the evaluation; the discussion is for the authors"
    return ChecklistAnswer(text, "known-first", True)


def outcome(report: Report) -> ChecklistAnswer:
    text = (
        "an image is fractured if it has an annotated fracture; a box is a true positive if it overlaps one (IoU at "
        "least .5)"
    )
    return ChecklistAnswer(f"{text}; annotators and annotation process are not in the report", "images", True)


def output(report: Report) -> ChecklistAnswer:
    points = [
        f"{escaped(rule_title(p.rule))}: {format_number(p.score)} ({escaped(p.origin)})"
        for p in report.operating_points
    ]
    return ChecklistAnswer("boxes with a score of 0 to 1; thresholds: " + "; ".join(points), "operating-points")


def calculated(report: Report) -> ChecklistAnswer | None:
    if DETECTOR not in report.about:
        return None
    commit = report.about.get(COMMIT)
    text = f"by {escaped(report.about[DETECTOR])}; an image's score is its highest box score, 0 without a box"
    return ChecklistAnswer(text + (f"; code at commit {code(commit)}" if commit else ""), "provenance", not commit)


def recalibrated(report: Report) -> ChecklistAnswer | None:
    scores = dict.fromkeys(reliability.scores for reliability in report.calibration if reliability.scores != RAW)
    methods = [method_title(method) for method in scores]
    if not methods:
        return None
    fitted_on = _chosen_on(report) or "data that the report does not name"
    text = f"scores recalibrated ({escaped(', '.join(methods))}), fitted on {escaped(fitted_on)}"
    return ChecklistAnswer(text, "calibration")


def recalibration_result(report: Report) -> ChecklistAnswer | None:
    if recalibrated(report) is None:
        return None
    errors = [
        f"{escaped(scores_title(reliability))}: ECE {_formatted(reliability.figures['ECE'])}"
        for reliability in report.calibration
        if "ECE" in reliability.figures
    ]
    return ChecklistAnswer("; ".join(errors), "calibration")


def _listed(figures: dict[str, Estimate]) -> str:
    return "; ".join(f"{name} {_formatted(figure)}" for name, figure in figures.items())


def _formatted(figure: Estimate) -> str:
    return escaped(str(format_estimate(figure)))
