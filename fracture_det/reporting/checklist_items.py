"""What a report answers to the items of a reporting checklist, with its values; None where it has no answer."""

from __future__ import annotations

from dataclasses import dataclass

from fracture_det.evaluation.report import Estimate, Report
from fracture_det.reporting.formatting import counted, number, percent, point_title, rule_title, written
from fracture_det.reporting.markdown import code, escaped


@dataclass(frozen=True)
class Answer:
    """What a report says to an item. text: Markdown. where: id of the part that holds it. partly: not all of it."""

    text: str
    where: str
    partly: bool = False


def summary(report: Report) -> Answer:
    return Answer(
        "data and results in plain words open the report; design and conclusions are not in it", "summary", True
    )


def sources(report: Report) -> Answer | None:
    data = report.about.get("data")
    if data is None:
        return None
    digest = report.about.get("data SHA-256")
    text = f"test data {code(data)}" + (f", SHA-256 {code(digest)}" if digest else "")
    return Answer(f"{text}; where it came from is not in the report", "provenance", True)


def missing(report: Report) -> Answer:
    counts = report.counts
    text = (
        f"{counts['images_failed']:,} of {counts['images_asked']:,} images could not be predicted, "
        f"{counts['images_failed_fractured']:,} of them fractured; they are in no figure and are not counted as healthy"
    )
    return Answer(f"{text}; data missing before that is not in the report", "failures", True)


def split(report: Report) -> Answer | None:
    split, chosen = report.about.get("split"), _chosen_elsewhere(report)
    parts = [f"split manifest {code(split)}"] if split else []
    parts += [f"thresholds and calibration were {escaped(chosen)}, and applied to the test data"] if chosen else []
    return Answer("; ".join(parts), "provenance" if split else "operating-points", True) if parts else None


def _chosen_elsewhere(report: Report) -> str | None:
    return next((point.origin for point in report.operating_points if point.origin.startswith("chosen on")), None)


def model(report: Report) -> Answer | None:
    names = ("detector", "config", "weights SHA-256")
    parts = [f"{name} {code(report.about[name])}" for name in names if name in report.about]
    return Answer(", ".join(parts) + "; the architecture is not in the report", "provenance", True) if parts else None


def software(report: Report) -> Answer | None:
    packages = (
        "fracture_det",
        "python",
        "numpy",
        "pycocotools",
        "opencv-python-headless",
        "pillow",
        "torch",
        "detectron2",
    )
    parts = [f"{name} {escaped(report.about[name])}" for name in packages if name in report.about]
    return Answer(", ".join(parts), "provenance") if parts else None


def measures(report: Report) -> Answer:
    names = ["COCO AP and AR", "precision, recall and F1 of boxes", "free response by three match rules"]
    names += ["sensitivity, specificity, PPV, NPV, accuracy, AUROC and AUPRC of images and groups"]
    names += ["ECE, Brier and reliability diagrams"] if report.calibration else []
    return Answer("; ".join(names), "operating-points")


def uncertainty(report: Report) -> Answer | None:
    n = report.settings.get("n_bootstrap")
    if not n or report.counts["groups"] < 2:
        return None
    level = percent(float(report.settings.get("level", 0.95)))
    text = (
        f"{level} % intervals: BCa bootstrap, {n:,} resamples of {report.counts['groups']:,} groups, seed "
        f"{report.settings.get('seed')}; Wilson's beside proportions. No test of significance"
    )
    return Answer(text, "operating-points")


def clusters(report: Report) -> Answer | None:
    if uncertainty(report) is None:
        return None
    return Answer(
        "intervals draw whole groups (patients, or copies of an image); strata show each anatomy", "strata", True
    )


def robustness(report: Report) -> Answer | None:
    kinds = list(dict.fromkeys(row.perturbation for row in report.robustness if row.strength > 0))
    return Answer(f"AP50 and AUROC under {escaped(', '.join(kinds))}", "robustness") if kinds else None


def flow(report: Report) -> Answer:
    counts = report.counts
    text = (
        f"{counted(counts['images_asked'], 'image')} asked, {counts['images_predicted']:,} predicted, "
        f"{counts['images_failed']:,} failed; {counts['images_fractured']:,} fractured, {counts['images_healthy']:,} "
        f"healthy; {counted(counts['groups'], 'group')}, {counts['groups_fractured']:,} fractured"
    )
    return Answer(f"{text}; who was left out before is not in the report", "provenance", True)


def events(report: Report) -> Answer:
    counts = report.counts
    text = (
        f"evaluation: {counted(counts['images_predicted'], 'image')}, {counts['images_fractured']:,} fractured, with "
        f"{counted(counts['boxes_truth'], 'marked fracture')}; each cell of a table says what it rests on"
    )
    return Answer(f"{text}; numbers of training and validation are not in the report", "provenance", True)


def characteristics(report: Report) -> Answer | None:
    columns = list(dict.fromkeys(row.column for row in report.strata if row.column != "all"))
    if not columns:
        return None
    text = f"numbers of images, fractured and boxes by {escaped(', '.join(columns))}"
    return Answer(f"{text}; of the test data only, nothing else of the patients", "strata", True)


def performance(report: Report) -> Answer:
    figures = {"AP50": report.coco["AP50"], "AUROC": report.image["AUROC"], **_first_point(report)}
    return Answer("; ".join(f"{name} {_said(one)}" for name, one in figures.items()), "boxes")


def by_stratum(report: Report) -> Answer:
    one = performance(report)
    return Answer(f"{one.text}; by subgroup in the strata", "strata") if characteristics(report) else one


def heterogeneity(report: Report) -> Answer | None:
    anatomies = [row for row in report.strata if row.column == "anatomy" and "AUROC" in row.figures]
    if len(anatomies) < 2:
        return None
    said = [f"{escaped(row.value)} {_said(row.figures['AUROC'])}" for row in anatomies]
    return Answer(f"AUROC by anatomy: {'; '.join(said)}; no model of the differences", "strata", True)


def accuracy(report: Report) -> Answer | None:
    figures = _first_point(report)
    if all(one.value is None for one in figures.values()):
        return None
    text = "; ".join(f"{name} {_said(one)}" for name, one in figures.items())
    return Answer(
        f"{text}, at {escaped(point_title(report.operating_points[0]))}; PPV and NPV there", "operating-points"
    )


def _first_point(report: Report) -> dict[str, Estimate]:
    image = report.operating_points[0].image
    return {name: image[name] for name in ("sensitivity", "specificity")}


def failure_analysis(report: Report) -> Answer | None:
    errors = report.errors
    if not errors.types:
        return None
    often = ", ".join(f"{name} {one.count:,}" for name, one in errors.types.items())
    text = f"error types: {escaped(often)}; false positives on healthy images by anatomy"
    return Answer(
        text + (f"; {counted(len(errors.gallery), 'example')} in galleries" if errors.gallery else ""), "errors"
    )


def notes(report: Report) -> Answer | None:
    if not report.notes:
        return None
    return Answer(
        f"{counted(len(report.notes), 'note')} to be known first; the discussion is the authors'", "known-first", True
    )


def outcome(report: Report) -> Answer:
    text = (
        "an image is fractured when it holds a marked fracture; a box is right when it overlaps one (IoU at least .5)"
    )
    return Answer(f"{text}; who marked them, and how, is not in the report", "images", True)


def output(report: Report) -> Answer:
    points = [
        f"{escaped(rule_title(p.rule))}: {number(p.score)} ({escaped(p.origin)})" for p in report.operating_points
    ]
    return Answer("boxes with a score of 0 to 1; thresholds: " + "; ".join(points), "operating-points")


def calculated(report: Report) -> Answer | None:
    if "detector" not in report.about:
        return None
    commit = report.about.get("commit")
    text = f"by {escaped(report.about['detector'])}; an image's score is its highest box score, 0 without a box"
    return Answer(text + (f"; code at commit {code(commit)}" if commit else ""), "provenance", not commit)


def recalibrated(report: Report) -> Answer | None:
    methods = list(dict.fromkeys(one.scores for one in report.calibration if one.scores != "raw"))
    if not methods:
        return None
    where = (_chosen_elsewhere(report) or "data that the report does not name").removeprefix("chosen on ")
    return Answer(f"scores recalibrated ({escaped(', '.join(methods))}), fitted on {escaped(where)}", "calibration")


def recalibration_result(report: Report) -> Answer | None:
    if recalibrated(report) is None:
        return None
    said = [
        f"{one.of}, {escaped(one.scores)}: ECE {_said(one.figures['ECE'])}"
        for one in report.calibration
        if "ECE" in one.figures
    ]
    return Answer("; ".join(said), "calibration")


def _said(figure: Estimate) -> str:
    return escaped(str(written(figure)))
