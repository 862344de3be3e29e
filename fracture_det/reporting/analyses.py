"""A closer look: strata, errors, robustness, speed, provenance, failures, as the sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fracture_det.evaluation.report import SMALL_N, ErrorType, Estimate, Report, RobustnessRow
from fracture_det.reporting.blocks import (
    Beside,
    Block,
    Code,
    Column,
    Delta,
    Drawing,
    Gallery,
    Heading,
    Remark,
    Row,
    Table,
    Text,
)
from fracture_det.reporting.formatting import SMALL, TITLES, counted, number, point_title, titled, written

ERROR_MEANINGS = {
    "classification": "on a fracture, with the wrong class",
    "localisation": "touches a fracture of its class, IoU .1 to .5",
    "both": "touches a fracture of another class, IoU .1 to .5",
    "duplicate": "a second box on a fracture that a surer box hits",
    "background": "on no fracture, IoU at most .1",
    "missed": "a fracture that no box is about",
    "false positive": "every box that does not hit",
    "false negative": "every fracture that is not hit",
}
GALLERY_CAPTIONS = {
    "false positive": "False positives, the surest first",
    "miss": "Missed fractures, the largest first",
    "hit": "Best hits, the surest first",
}


def strata(report: Report) -> Iterator[Block]:
    if not report.strata:
        yield Text("Not measured.")
        return
    point = report.operating_points[0]
    yield Text(
        f"At the main operating point ({point_title(point)}). Intervals draw the groups that have an image in the row."
    )
    names = list(dict.fromkeys(name for row in report.strata for name in row.figures))
    columns = [Column("Images"), Column("Fractured"), Column("Boxes"), *(Column(TITLES.get(n, n)) for n in names)]
    parts: dict[str, list[Row]] = {}
    for row in report.strata:
        cells = [row.n_images, row.n_fractured, row.n_boxes, *(row.figures.get(name) for name in names)]
        parts.setdefault("" if row.column == "all" else titled(row.column), []).append((row.value, cells))
    note = (
        f"{SMALL} rests on fewer than {SMALL_N}. Boxes: marked fractures. Rows by box size ask only for fractures of "
        "that size; what is measured on whole images does not apply. Wilson's intervals are in `strata.csv`."
    )
    yield Table("By body part and every other column of the data", columns, list(parts.items()), note, brief=True)
    for name, caption in FORESTS.items():
        if name in names:
            yield Drawing(forest_name(name), caption, f"{caption} The values are in the table above.")


FORESTS = {
    "AP50": "AP50 by stratum; hollow marks rest on few, the dashed line is all images.",
    "sensitivity": "Sensitivity of images by stratum.",
    "specificity": "Specificity of images by stratum.",
}


def forest_name(figure: str) -> str:
    """Return the name of the forest plot of a figure."""
    return f"strata_{figure.lower()}"


def errors(report: Report) -> Iterator[Block]:
    types, base_ap50 = report.errors.types, report.errors.base_ap50
    if types:
        base = "not defined" if base_ap50 is None else number(base_ap50)
        yield Heading("Why boxes are wrong and fractures are missed")
        yield Drawing(
            "errors",
            f"What AP50 ({base}) would gain if one type of error alone were mended (TIDE), and how often it happens.",
            "Bars of the AP50 gained by mending each error type; the values are in the table below.",
        )
        rows: list[Row] = [
            (titled(name), [ERROR_MEANINGS.get(name, ""), one.count, _delta(one)]) for name, one in types.items()
        ]
        columns = [Column("What", words=True), Column("At the main operating point"), Column("AP50 would gain")]
        yield Table("TIDE's error types", columns, [("", rows)],
                    f"AP50 before mending: {base}. The last two are sums over the others, seen from boxes and from "
                    "fractures.")  # fmt: skip
    else:
        yield Text("Error types were not measured.")
    yield from _healthy(report)
    yield from _galleries(report)


def _delta(one: ErrorType) -> Delta:
    reason = None if one.delta_ap50 is not None else "no truth box"
    return Delta(Estimate(one.delta_ap50, one.low, one.high, reason=reason))


def _healthy(report: Report) -> Iterator[Block]:
    yield Heading("False positives on healthy images")
    if not report.errors.healthy:
        yield Text("There is no healthy image.")
        return
    rows: list[Row] = [
        (row.anatomy, [row.n_images, row.n_boxes, row.images_called, row.fp_per_image]) for row in report.errors.healthy
    ]
    columns = [Column("Healthy images"), Column("Boxes on them"), Column("Images called"), Column("Boxes per image")]
    yield Table(f"By body part, {point_title(report.operating_points[0])}", columns, [("", rows)])


def _galleries(report: Report) -> Iterator[Block]:
    items = report.errors.gallery
    yield Heading("Galleries")
    if not items:
        yield Text("There is nothing to show: no box at the main operating point, and no missed fracture.")
        return
    yield Text("Amber: the detector's box. Dashed blue: the marked fracture. All at the main operating point.")
    for kind in dict.fromkeys(item.kind for item in items):
        chosen = [item for item in items if item.kind == kind]
        yield Gallery(kind, GALLERY_CAPTIONS.get(kind, kind), chosen)


def robustness(report: Report) -> Iterator[Block]:
    rows = report.robustness
    if not rows:
        yield Text("Not measured: run with `--robustness`.")
        return
    yield Drawing(
        "robustness",
        "AP50 and AUROC over the strength of each perturbation; strength 0 is the untouched data.",
        "Small panels, one per perturbation, of AP50 and AUROC over strength; the values are in the table below.",
    )
    for name in dict.fromkeys(name for row in rows for name in row.figures):
        yield _robustness_table(name, [row for row in rows if name in row.figures])


def _robustness_table(name: str, rows: Sequence[RobustnessRow]) -> Table:
    strengths = sorted({row.strength for row in rows if row.strength > 0})
    found = {(row.perturbation, row.strength): Remark(row.figures[name], row.setting) for row in rows}
    kinds = list(dict.fromkeys(row.perturbation for row in rows if row.strength > 0))
    untouched = dict.fromkeys(str(written(row.figures[name])) for row in rows if row.strength == 0)
    lines: list[Row] = [(titled(kind), [found.get((kind, strength)) for strength in strengths]) for kind in kinds]
    note = f"Untouched: {'; '.join(untouched)}." if untouched else "The untouched images were not measured."
    columns = [Column(f"Strength {strength}") for strength in strengths]
    return Table(f"{name} under perturbed images", columns, [("", lines)], note, brief=True)


def speed(report: Report) -> Iterator[Block]:
    timing = report.timing
    if timing is None:
        yield Text("Not measured: the predictions were read from a file; run with `--detector`.")
        return
    rate = "not measured" if timing.images_per_second is None else f"{timing.images_per_second:.2f}"
    memory = "not measured" if timing.peak_memory_mb is None else f"{timing.peak_memory_mb:,.0f} MB"
    facts: list[Row] = [
        ("Machine", [timing.machine]),
        ("Images timed", [f"{timing.images:,}"]),
        ("Images per call", [f"{timing.batch_size:,}"]),
        ("Images per second", [rate]),
        ("Peak memory of the process", [memory]),
    ]
    yield Table("Where it was timed", [Column("Value", words=True)], [("", facts)])
    stages: list[Row] = [(titled(name), [f"{s.median_ms:.1f}", f"{s.p95_ms:.1f}"]) for name, s in timing.stages.items()]
    if stages:
        columns = [Column("Median, ms"), Column("95th percentile, ms")]
        yield Table("Milliseconds per image and stage", columns, [("", stages)])
    else:
        yield Text("Stages were not timed.")


def provenance(report: Report) -> Iterator[Block]:
    yield Table("What was judged, by what", [Column("Value", words=True)], [("", _pairs(report.about))])
    settings = {name.replace("_", " "): value for name, value in report.settings.items()}
    counts: list[Row] = [(name.replace("_", " "), [value]) for name, value in report.counts.items()]
    yield Beside(
        [
            Table("Counts", [Column("Number")], [("", counts)]),
            Table("Settings", [Column("Value", words=True)], [("", _pairs(settings))]),
        ]
    )
    yield Text("Equal inputs give an equal `report.json`, byte for byte, its timing aside.")


def _pairs(values: Mapping[str, object]) -> list[Row]:
    return [(name, [Code(f"{value:g}" if isinstance(value, float) else str(value))]) for name, value in values.items()]


def failures(report: Report) -> Iterator[Block]:
    if not report.failures:
        yield Text("None: every image was read and predicted.")
        return
    yield Text(
        f"{counted(len(report.failures), 'image')} could not be predicted. They are in no figure, and are not counted "
        "as healthy."
    )
    rows: list[Row] = [(name, [error]) for name, error in report.failures.items()]
    yield Table("What failed", [Column("Error", words=True)], [("", rows)])
