"""Primary results: data, operating points, lesion and image level, calibration, as the sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fracture_det.evaluation.matching import MATCH_RULES
from fracture_det.evaluation.report import BOX, IMAGE, RAW, Estimate, OperatingPoint, Reliability, Report
from fracture_det.reporting.blocks import Block, Cell, Column, Figure, Row, SideBySide, Table, Text
from fracture_det.reporting.formatting import (
    TITLES,
    format_number,
    format_percent,
    point_title,
    reading,
    rule_title,
    scores_title,
)

COUNT_TITLES = {
    "images_asked": "Images in the data set",
    "images_predicted": "Images evaluated",
    "images_failed": "Images without a prediction",
    "images_failed_fractured": "… of which fractured",
    "images_fractured": "Fractured images evaluated",
    "images_healthy": "Healthy images evaluated",
    "groups": "Groups (patients, or copies of one image)",
    "groups_fractured": "… of which fractured",
    "boxes_truth": "Annotated fractures",
    "boxes_predicted": "Predicted boxes, at any score",
}
# The columns of the table of counts: field of PointCounts, its heading, and the heading above.
COUNT_COLUMNS = (
    ("boxes_tp", "TP", "Boxes"),
    ("boxes_fp", "FP", "Boxes"),
    ("boxes_fn", "FN", "Boxes"),
    ("images_tp", "TP", "Images"),
    ("images_fn", "FN", "Images"),
    ("images_fp", "FP", "Images"),
    ("images_tn", "TN", "Images"),
    ("groups_tp", "TP", "Groups"),
    ("groups_fn", "FN", "Groups"),
    ("groups_fp", "FP", "Groups"),
    ("groups_tn", "TN", "Groups"),
)
COCO_MEANINGS = {
    "AP": "mean over IoU .50, .55, … .95",
    "AP50": "at IoU .50",
    "AP75": "at IoU .75",
    "AP small": "fractures below 32² px",
    "AP medium": "fractures of 32² to 96² px",
    "AP large": "fractures above 96² px",
    "AR@1": "mean recall over IoU, at most 1 box per image",
    "AR@10": "at most 10 boxes per image",
    "AR@100": "at most 100 boxes per image",
    "AR small": "fractures below 32² px",
    "AR medium": "fractures of 32² to 96² px",
    "AR large": "fractures above 96² px",
}


def data(report: Report) -> Iterator[Block]:
    """Yield the numbers of images, groups and boxes."""
    yield Text(
        "An image is fractured if it has at least one annotated fracture, otherwise healthy. A group is one patient, "
        "or copies of one image; it is fractured if one of its images is."
    )
    rows: list[Row] = [(COUNT_TITLES.get(name, name), [value]) for name, value in report.counts.items()]
    yield Table("Images, groups and boxes", [Column("Number")], [("", rows)])


def operating_points(report: Report) -> Iterator[Block]:
    """Yield the thresholds, the confusion matrices and the figures at each threshold."""
    points = report.operating_points
    yield Text(
        "A box is a prediction if its score reaches the threshold; an image is predicted fractured if it has such a "
        "box. All thresholds were fixed before this data set was evaluated. The first is the main operating point."
    )
    rows: list[Row] = [(rule_title(p.rule), [format_number(p.score), p.origin]) for p in points]
    rows += [(rule_title(rule), ["none", f"not reached: {reason}"]) for rule, reason in report.not_reached.items()]
    yield Table("Thresholds and their origin", (Column("Score"), Column("Origin", words=True)), [("", rows)])
    main, counts = point_title(points[0]), points[0].counts
    images = (counts.images_tp, counts.images_fn, counts.images_fp, counts.images_tn)
    groups = (counts.groups_tp, counts.groups_fn, counts.groups_fp, counts.groups_tn)
    yield SideBySide([_confusion_matrix(f"Images: {main}", *images), _confusion_matrix(f"Groups: {main}", *groups)])
    yield _count_table(points)
    yield Text(reading(report))
    yield _point_table("Boxes at each operating point", points, [p.lesion for p in points])
    yield _point_table("Images at each operating point", points, [p.image for p in points])
    yield from _groups(report)
    yield from _predictive_values(points)


def _groups(report: Report) -> Iterator[Block]:
    points = report.operating_points
    if report.counts["groups"] == report.counts["images_predicted"]:
        yield Text("Every image is its own group: the figures of groups equal those of images.")
    else:
        yield _point_table("Groups at each operating point", points, [p.group for p in points])


def _confusion_matrix(caption: str, tp: int, fn: int, fp: int, tn: int) -> Table:
    rows: list[Row] = [
        ("Fractured", [tp, fn, tp + fn]),
        ("Healthy", [fp, tn, fp + tn]),
        ("Total", [tp + fp, fn + tn, tp + fn + fp + tn]),
    ]
    columns = [Column("Predicted fractured"), Column("Predicted healthy"), Column("Total")]
    return Table(caption, columns, [("", rows)])


def _count_table(points: Sequence[OperatingPoint]) -> Table:
    columns = [Column(title, group) for _, title, group in COUNT_COLUMNS]
    rows: list[Row] = [(point_title(p), [getattr(p.counts, name) for name, _, _ in COUNT_COLUMNS]) for p in points]
    note = (
        "TP, FP, FN, TN: true positives, false positives, false negatives, true negatives. A box is a true positive if "
        "it matches an annotated fracture."
    )
    return Table("Counts at all operating points", columns, [("", rows)], note)


def _point_table(caption: str, points: Sequence[OperatingPoint], figures: Sequence[Mapping[str, Estimate]]) -> Table:
    names = list(dict.fromkeys(name for at_point in figures for name in at_point))
    rows: list[Row] = [
        (point_title(p), [at_point.get(name) for name in names]) for p, at_point in zip(points, figures, strict=True)
    ]
    return Table(caption, [Column(TITLES.get(name, name)) for name in names], [("", rows)])


def _predictive_values(points: Sequence[OperatingPoint]) -> Iterator[Block]:
    prevalences = [values.prevalence for values in points[0].predictive]
    if not prevalences:
        yield Text("PPV and NPV at other prevalences were not requested: run with `--prevalence`.")
        return
    columns = [
        Column(title, f"Prevalence {format_percent(prevalence)} %")
        for prevalence in prevalences
        for title in ("PPV", "NPV")
    ]
    rows: list[Row] = [
        (point_title(p), [cell for values in p.predictive for cell in (values.ppv, values.npv)]) for p in points
    ]
    note = (
        "Image level, by Bayes' theorem from sensitivity and specificity; the tables above have PPV and NPV at the "
        "prevalence of this data set."
    )
    yield Table("Predictive values at stated prevalences of fracture", columns, [("", rows)], note)


def lesion_level(report: Report) -> Iterator[Block]:
    """Yield the FROC and precision-recall curves with their values, and COCO's figures."""
    yield SideBySide(
        [
            Figure(
                "froc",
                "Free-response ROC: sensitivity for annotated fractures against false positives per image, by three "
                "match rules.",
                "Free-response ROC curves: sensitivity against false positives per image, one line per match rule, "
                "with the operating points; the values are in the table below.",
            ),
            Figure(
                "pr",
                "Precision against recall of boxes at IoU ≥ .5. The curve is interpolated (the highest precision at "
                "each recall or beyond), so an operating point can lie below it.",
                "Curve of precision against recall at IoU .5 with the operating points; its area, AP50, is in the "
                "table below.",
            ),
        ]
    )
    yield _froc_table(report)
    rows: list[Row] = [(name, [COCO_MEANINGS.get(name, ""), figure]) for name, figure in report.coco.items()]
    columns = [Column("Definition", words=True), Column("Value")]
    yield Table("COCO metrics", columns, [("", rows)], "As computed by pycocotools.")


def _froc_table(report: Report) -> Table:
    rules = report.froc
    targets = list(dict.fromkeys(target for froc in rules.values() for target in froc.fp_per_image))
    sensitivity = {rule: dict(zip(froc.fp_per_image, froc.sensitivity, strict=True)) for rule, froc in rules.items()}
    rows: list[Row] = [(_as_fraction(target), [sensitivity[rule].get(target) for rule in rules]) for target in targets]
    rows.append(("Mean", [froc.mean for froc in rules.values()]))
    columns = [Column(MATCH_RULES.get(rule, rule), "Match rule") for rule in rules]
    note = "Highest sensitivity at no more than the stated number of false positives per image; no interpolation."
    return Table("Sensitivity at fixed numbers of false positives per image (FROC)", columns, [("", rows)], note)


def _as_fraction(target: float) -> str:
    return f"1/{round(1 / target)}" if 0 < target < 1 else f"{target:g}"


def image_level(report: Report) -> Iterator[Block]:
    """Yield the areas under the curves of images and groups."""
    yield Text(
        "The score of an image is its highest box score, 0 without a box; the score of a group is the highest of its "
        "images."
    )
    names = list(dict.fromkeys([*report.image, *report.group]))
    rows: list[Row] = [(name, [report.image.get(name), report.group.get(name)]) for name in names]
    note = (
        "Chance level is .5 for AUROC, and the proportion of fractured cases for AUPRC. The ROC curve is at the top of "
        "this report; sensitivity, specificity and predictive values are under Operating points."
    )
    yield Table("Areas under the curves", [Column("Images"), Column("Groups")], [("", rows)], note)


def calibration(report: Report) -> Iterator[Block]:
    """Yield the reliability diagrams with their figures and bins."""
    reliabilities = report.calibration
    if not reliabilities:
        yield Text("Not measured.")
        return
    if all(reliability.scores == RAW for reliability in reliabilities):
        yield Text("No calibration was applied: run with `--val`, or with the `--calibration` of an earlier run.")
    yield Figure(
        "reliability",
        "Reliability diagrams: observed frequency against score, above the number of cases in each bin. On the "
        "diagonal, scores equal probabilities.",
        "Reliability diagrams of raw and calibrated scores; the bins are in the tables below.",
    )
    names = list(dict.fromkeys(name for reliability in reliabilities for name in reliability.figures))
    rows: list[Row] = [
        (scores_title(reliability), [reliability.figures.get(name) for name in names]) for reliability in reliabilities
    ]
    note = (
        "ECE: expected calibration error, the mean distance between score and observed frequency; by chance, its "
        "expected value for perfectly calibrated scores in a sample of this size. The Brier score of the base rate is "
        "that of always predicting the proportion of events."
    )
    yield Table("Calibration error", [Column(TITLES.get(name, name)) for name in names], [("", rows)], note)
    for of in dict.fromkeys(reliability.of for reliability in reliabilities):
        yield _bin_table(of, [reliability for reliability in reliabilities if reliability.of == of])


def _bin_table(of: str, reliabilities: Sequence[Reliability]) -> Table:
    columns = [
        Column(title, scores_title(reliability))
        for reliability in reliabilities
        for title in ("Number", "Mean score", "Observed frequency")
    ]
    edges = dict.fromkeys((bin_.low, bin_.high) for reliability in reliabilities for bin_ in reliability.bins)
    rows: list[Row] = [
        (
            f"{format_number(low, 2)} to {format_number(high, 2)}",
            [cell for reliability in reliabilities for cell in _bin_cells(reliability, low, high)],
        )
        for low, high in edges
    ]
    event = {IMAGE: "the image is fractured", BOX: "the box is a true positive"}.get(of, of)
    title = {IMAGE: "images", BOX: "boxes"}.get(of, of)
    note = f"Event: {event}. A bin without any {of} has no observed frequency."
    return Table(f"Bins of the reliability diagram, {title}", columns, [("", rows)], note)


def _bin_cells(reliability: Reliability, low: float, high: float) -> list[Cell]:
    for bin_ in reliability.bins:
        if (bin_.low, bin_.high) == (low, high):
            mean = None if bin_.mean_score is None else format_number(bin_.mean_score)
            return [bin_.n, mean, bin_.rate if bin_.n else None]
    return [None, None, None]
