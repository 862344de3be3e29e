"""How good a detector is: thresholds, boxes, images and groups, calibration, as the sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fracture_det.evaluation.matching import MATCH_RULES
from fracture_det.evaluation.report import Estimate, OperatingPoint, Reliability, Report
from fracture_det.reporting.blocks import Beside, Block, Cell, Column, Drawing, Row, Table, Text
from fracture_det.reporting.formatting import TITLES, number, percent, point_title, reading, rule_title, titled

COCO_MEANINGS = {
    "AP": "mean over IoU .5, .55, … .95",
    "AP50": "at IoU .5",
    "AP75": "at IoU .75",
    "AR@1": "recall with at most 1 box per image, mean over IoU",
    "AR@10": "recall with at most 10 boxes per image",
    "AR@100": "recall with at most 100 boxes per image",
}
SIZE_MEANINGS = {
    "small": "fractures below 32² px",
    "medium": "fractures of 32² to 96² px",
    "large": "fractures above 96² px",
}


def operating(report: Report) -> Iterator[Block]:
    points = report.operating_points
    yield Text(
        "A threshold turns scores into calls: a box is shown, and its radiograph called fractured, when its score "
        "reaches it. Every threshold was chosen before this data was looked at; the first one is the main one."
    )
    rows: list[Row] = [(rule_title(p.rule), [number(p.score), p.origin]) for p in points]
    rows += [(rule_title(rule), ["none", f"not reached: {why}"]) for rule, why in report.not_reached.items()]
    yield Table("Thresholds and where they come from", (Column("Score"), Column("Origin", words=True)), [("", rows)])
    yield Beside([_confusion(points[0], level, level + "s") for level in ("image", "group")])
    yield _count_table(points)
    yield Text(reading(report))
    yield _point_table("Boxes at each operating point", points, [p.lesion for p in points])
    yield _point_table("Images at each operating point", points, [p.image for p in points])
    yield from _groups(report)
    yield from _predictive(points)


def _groups(report: Report) -> Iterator[Block]:
    points = report.operating_points
    if report.counts["groups"] == report.counts["images_predicted"]:
        yield Text("Every image is a group of its own: the figures of groups are those of images.")
    else:
        yield _point_table("Groups at each operating point", points, [p.group for p in points])


def _confusion(point: OperatingPoint, level: str, units: str) -> Table:
    cell = {name: point.counts.get(f"{units}_{name}", 0) for name in ("tp", "fn", "fp", "tn")}
    rows: list[Row] = [
        ("Fractured", [cell["tp"], cell["fn"], cell["tp"] + cell["fn"]]),
        ("Healthy", [cell["fp"], cell["tn"], cell["fp"] + cell["tn"]]),
        ("All", [cell["tp"] + cell["fp"], cell["fn"] + cell["tn"], sum(cell.values())]),
    ]
    columns = [Column("Called"), Column("Not called"), Column("All")]
    return Table(f"{level.capitalize()}s: {point_title(point)}", columns, [("", rows)])


def _count_table(points: Sequence[OperatingPoint]) -> Table:
    names = list(points[0].counts)
    said = {"tp": "right", "fp": "false", "fn": "missed", "tn": "left alone"}
    columns = [Column(said.get(name.rpartition("_")[2], name), name.partition("_")[0].capitalize()) for name in names]
    rows: list[Row] = [(point_title(p), [p.counts.get(name) for name in names]) for p in points]
    note = "Right: a box on a fracture, a fractured image or group that is called. Left alone: healthy and not called."
    return Table("Confusion tables of all operating points", columns, [("", rows)], note)


def _point_table(caption: str, points: Sequence[OperatingPoint], figures: Sequence[Mapping[str, Estimate]]) -> Table:
    names = list(dict.fromkeys(name for one in figures for name in one))
    rows: list[Row] = [
        (point_title(p), [one.get(name) for name in names]) for p, one in zip(points, figures, strict=True)
    ]
    return Table(caption, [Column(TITLES.get(name, name)) for name in names], [("", rows)])


def _predictive(points: Sequence[OperatingPoint]) -> Iterator[Block]:
    prevalences = [one.prevalence for one in points[0].predictive]
    if not prevalences:
        yield Text("PPV and NPV at other prevalences were not asked for: run with `--prevalence`.")
        return
    columns = [
        Column(title, f"If {percent(share)} % of images are fractured")
        for share in prevalences
        for title in ("PPV", "NPV")
    ]
    rows: list[Row] = [(point_title(p), [cell for one in p.predictive for cell in (one.ppv, one.npv)]) for p in points]
    note = (
        "What a call is worth where fractures are as common as stated, by Bayes' theorem from sensitivity and "
        "specificity of images; the tables above have PPV and NPV at this data's own prevalence."
    )
    yield Table("Predictive values at stated prevalences", columns, [("", rows)], note)


def lesions(report: Report) -> Iterator[Block]:
    yield Beside(
        [
            Drawing(
                "froc",
                "Free response: fractures found for the false boxes that one accepts, by three match rules.",
                "Free-response curves: sensitivity over false positives per image, one line per match rule, with the "
                "operating points; the values are in the table below.",
            ),
            Drawing(
                "pr",
                "Precision over recall of boxes at IoU .5; a marked operating point may lie below the curve, which "
                "takes the best precision at each recall or beyond.",
                "Curve of precision over recall at IoU .5 with the operating points; its area, AP50, is in the table "
                "below.",
            ),
        ]
    )
    yield _froc_table(report)
    rows: list[Row] = [(name, [_coco_meaning(name), figure]) for name, figure in report.coco.items()]
    yield Table(
        "COCO figures", [Column("What", words=True), Column("Figure")], [("", rows)], "As pycocotools computes them."
    )


def _froc_table(report: Report) -> Table:
    rules = report.froc
    targets = list(dict.fromkeys(target for froc in rules.values() for target in froc.fp_per_image))
    found = {rule: dict(zip(froc.fp_per_image, froc.sensitivity, strict=True)) for rule, froc in rules.items()}
    rows: list[Row] = [(_as_fraction(target), [found[rule].get(target) for rule in rules]) for target in targets]
    rows.append(("Mean", [froc.mean for froc in rules.values()]))
    columns = [Column(MATCH_RULES.get(rule, rule), "A box hits when") for rule in rules]
    note = "Highest sensitivity at no more than so many false positives per image, without interpolation."
    return Table("Sensitivity at fixed false positives per image", columns, [("", rows)], note)


def _as_fraction(target: float) -> str:
    return f"1/{round(1 / target)}" if 0 < target < 1 else f"{target:g}"


def _coco_meaning(name: str) -> str:
    if name in COCO_MEANINGS:
        return COCO_MEANINGS[name]
    kind, _, size = name.partition(" ")
    return f"{kind} of {SIZE_MEANINGS[size]}" if size in SIZE_MEANINGS else ""


def images(report: Report) -> Iterator[Block]:
    names = list(dict.fromkeys([*report.image, *report.group]))
    rows: list[Row] = [(name, [report.image.get(name), report.group.get(name)]) for name in names]
    note = (
        "A guess reaches an AUROC of .5, and as AUPRC the share of the fractured. The ROC curve stands at the top of "
        "this report; sensitivity, specificity and predictive values are among the operating points."
    )
    yield Text(
        "An image is fractured when it holds a marked fracture, and a group when one of its images is. The score of an "
        "image is its highest box score, 0 without a box; that of a group is the highest of its images."
    )
    yield Table("Areas under the curves", [Column("Images"), Column("Groups")], [("", rows)], note)


def calibration(report: Report) -> Iterator[Block]:
    parts = report.calibration
    if not parts:
        yield Text("Not measured.")
        return
    if all(one.scores == "raw" for one in parts):
        yield Text("No calibration was applied: run with `--val`, or with the `--calibration` of an earlier run.")
    yield Drawing(
        "reliability",
        "Reliability: the share that came true over the score, above how many there are; on the diagonal a score is "
        "what it promises.",
        "Reliability diagrams of raw and calibrated scores; the bins are in the tables below.",
    )
    names = list(dict.fromkeys(name for one in parts for name in one.figures))
    rows: list[Row] = [(_scores_title(one), [one.figures.get(name) for name in names]) for one in parts]
    note = (
        "ECE: mean distance of score and share that came true; ECE by chance: what perfect scores would show on so "
        "few. Brier: mean squared distance from the truth, to be compared with always saying the base rate."
    )
    columns = [Column(titled(name)) for name in names]
    yield Table("How far scores are probabilities", columns, [("", rows)], note)
    for of in dict.fromkeys(one.of for one in parts):
        yield _bin_table(of, [one for one in parts if one.of == of])


def _scores_title(one: Reliability) -> str:
    kind = {"image": "Images", "box": "Boxes"}.get(one.of, one.of)
    return f"{kind}, raw scores" if one.scores == "raw" else f"{kind}, calibrated ({one.scores})"


def _bin_table(of: str, parts: Sequence[Reliability]) -> Table:
    columns = [
        Column(title, _scores_title(one)) for one in parts for title in ("Number", "Mean score", "Share that came true")
    ]
    edges = list(dict.fromkeys((each.low, each.high) for one in parts for each in one.bins))
    rows: list[Row] = []
    for low, high in edges:
        cells: list[Cell] = []
        for one in parts:
            found = next((each for each in one.bins if (each.low, each.high) == (low, high)), None)
            mean = None if found is None or found.mean_score is None else number(found.mean_score)
            cells += [None, None, None] if found is None else [found.n, mean, found.rate if found.n else None]
        rows.append((f"{number(low, 2)} to {number(high, 2)}", cells))
    units = "images: is it fractured?" if of == "image" else "boxes: does it hit?"
    note = f"A bin that no {of} falls into has no share."
    return Table(f"Bins of the diagram, {units}", columns, [("", rows)], note)
