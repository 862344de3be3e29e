"""Secondary results, as sections of a report: subgroups, errors, robustness, time, reproducibility, failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fracture_det.evaluation.report import (
    ALL,
    FALSE_POSITIVE,
    HIT,
    MISS,
    SMALL_N,
    ErrorType,
    Estimate,
    Report,
    RobustnessRow,
)
from fracture_det.reporting.blocks import (
    AnnotatedEstimate,
    Block,
    Code,
    Column,
    Figure,
    Gallery,
    Heading,
    Row,
    SignedDifference,
    Table,
    Text,
)
from fracture_det.reporting.formatting import (
    SMALL,
    TITLES,
    column_title,
    format_estimate,
    format_number,
    point_title,
    titled,
)
from fracture_det.structures.wording import counted

ERROR_DEFINITIONS = {
    "classification": "IoU at least .5 with a fracture of another class",
    "localisation": "IoU .1 to .5 with a fracture of its class",
    "both": "IoU .1 to .5 with a fracture of another class",
    "duplicate": "a second box on a fracture that a higher score matches",
    "background": "IoU at most .1 with any fracture",
    "missed": "a fracture without a box, even a poorly placed one",
    "false positive": "all boxes without a matching fracture",
    "false negative": "all fractures without a matching box",
}
GALLERY_CAPTIONS = {
    FALSE_POSITIVE: "False positives, highest scores first",
    MISS: "False negatives (missed fractures), largest first",
    HIT: "True positives, highest scores first",
}


def subgroups(report: Report) -> Iterator[Block]:
    """Yield the table of all subgroups and the forest plots."""
    if not report.strata:
        yield Text("Not measured.")
        return
    point = report.operating_points[0]
    yield Text(
        f"At the main operating point ({point_title(point)}). The bootstrap of each row resamples the groups that have "
        "an image in it."
    )
    names = list(dict.fromkeys(name for row in report.strata for name in row.figures))
    columns = [
        Column("Images"),
        Column("Fractured"),
        Column("Lesions"),
        *(Column(TITLES.get(name, name)) for name in names),
    ]
    parts: dict[str, list[Row]] = {}
    for row in report.strata:
        cells = [row.n_images, row.n_fractured, row.n_boxes, *(row.figures.get(name) for name in names)]
        parts.setdefault("" if row.column == ALL else column_title(row.column), []).append((row.value, cells))
    note = (
        f"{SMALL}: sample smaller than {SMALL_N}. Fractured: images. Lesions: annotated fractures. Rows by box size "
        "count only fractures of that size, and have no image-level figures. Wilson's intervals are in `strata.csv`."
    )
    yield Table("Performance by body part and other subgroups", columns, list(parts.items()), note, brief=True)
    for name, caption in FORESTS.items():
        if name in names:
            yield Figure(forest_name(name), caption, f"{caption} The values are in the table above.")


FORESTS = {
    "AP50": "AP50 by subgroup. Hollow marks: small samples; dashed line: all images.",
    "sensitivity": "Image-level sensitivity by subgroup.",
    "specificity": "Image-level specificity by subgroup.",
}


def forest_name(figure: str) -> str:
    """Return the name of the forest plot of a figure."""
    return f"strata_{figure.lower()}"


def errors(report: Report) -> Iterator[Block]:
    """Yield TIDE's error types, the false positives on healthy images, and the galleries."""
    types, base_ap50 = report.errors.types, report.errors.base_ap50
    if types:
        base = "not defined" if base_ap50 is None else format_number(base_ap50)
        yield Heading("Error types")
        yield Figure(
            "errors",
            f"AP50 gained if one type of error alone were corrected (TIDE; AP50 as measured: {base}), and the number "
            "of such errors at the main operating point.",
            "Bars of the AP50 gained by correcting each error type; the values are in the table below.",
        )
        rows: list[Row] = [
            (titled(name), [ERROR_DEFINITIONS.get(name, ""), error.count, _gain(error)])
            for name, error in types.items()
        ]
        columns = [Column("Definition", words=True), Column("Number"), Column("AP50 gained")]
        note = (
            f"Numbers are at the main operating point; AP50 gained rests on all boxes. AP50 as measured: {base}. The "
            "last two types summarise the others, for boxes and for fractures."
        )
        yield Table("TIDE error types", columns, [("", rows)], note)
    else:
        yield Text("Error types were not measured.")
    yield from _healthy_images(report)
    yield from _galleries(report)


def _gain(error: ErrorType) -> SignedDifference:
    reason = None if error.delta_ap50 is not None else "no annotated fracture"
    return SignedDifference(Estimate(error.delta_ap50, error.low, error.high, reason=reason))


def _healthy_images(report: Report) -> Iterator[Block]:
    yield Heading("False positives on healthy images")
    if not report.errors.healthy:
        yield Text("There is no healthy image.")
        return
    rows: list[Row] = [
        (row.anatomy, [row.n_images, row.n_boxes, row.false_positive_rate, row.fp_per_image])
        for row in report.errors.healthy
    ]
    columns = [
        Column("Healthy images"),
        Column("False-positive boxes"),
        Column("False-positive rate"),
        Column("Boxes per image"),
    ]
    note = "False-positive rate: proportion of the healthy images that are predicted fractured (1 minus specificity)."
    caption = f"Healthy images by body part: {point_title(report.operating_points[0])}"
    yield Table(caption, columns, [("", rows)], note)


def _galleries(report: Report) -> Iterator[Block]:
    items = report.errors.gallery
    yield Heading("Examples")
    if not items:
        yield Text("No examples: there is no box at the main operating point, and no missed fracture.")
        return
    yield Text(
        "At the main operating point. Solid amber: predicted box. Solid blue: missed fracture. Dashed blue: other "
        "annotated fractures."
    )
    for kind in dict.fromkeys(item.kind for item in items):
        yield Gallery(kind, GALLERY_CAPTIONS.get(kind, kind), [item for item in items if item.kind == kind])


def robustness(report: Report) -> Iterator[Block]:
    """Yield the figures under each perturbation."""
    rows = report.robustness
    if not rows:
        yield Text("Not measured: run with `--robustness`.")
        return
    yield Figure(
        "robustness",
        "AP50 and AUROC against the strength of each perturbation; strength 0: untouched images.",
        "Small panels, one per perturbation, of AP50 and AUROC against strength; the values are in the table below.",
    )
    for name in dict.fromkeys(name for row in rows for name in row.figures):
        yield _robustness_table(name, [row for row in rows if name in row.figures])


def _robustness_table(name: str, rows: Sequence[RobustnessRow]) -> Table:
    strengths = sorted({row.strength for row in rows if row.strength > 0})
    cells = {(row.perturbation, row.strength): AnnotatedEstimate(row.figures[name], row.setting) for row in rows}
    kinds = list(dict.fromkeys(row.perturbation for row in rows if row.strength > 0))
    untouched = dict.fromkeys(str(format_estimate(row.figures[name])) for row in rows if row.strength == 0)
    lines: list[Row] = [(titled(kind), [cells.get((kind, strength)) for strength in strengths]) for kind in kinds]
    note = f"Untouched images: {'; '.join(untouched)}." if untouched else "The untouched images were not measured."
    columns = [Column(f"Strength {strength}") for strength in strengths]
    return Table(f"{name} under image perturbations", columns, [("", lines)], note, brief=True)


def inference_time(report: Report) -> Iterator[Block]:
    """Yield the machine, the throughput and the time of each stage."""
    timing = report.timing
    if timing is None:
        yield Text("Not measured: the predictions were read from a file; run with `--detector`.")
        return
    rate = "not measured" if timing.images_per_second is None else f"{timing.images_per_second:.2f}"
    memory = "not measured" if timing.peak_memory_mb is None else f"{timing.peak_memory_mb:,.0f} MB"
    facts: list[Row] = [
        ("Machine", [timing.machine]),
        ("Images timed", [f"{timing.images:,}"]),
        ("Batch size", [f"{timing.batch_size:,}"]),
        ("Images per second", [rate]),
        ("Peak memory of the process", [memory]),
    ]
    yield Table("Hardware and throughput", [Column("Value", words=True)], [("", facts)])
    stages: list[Row] = [(titled(name), [f"{s.median_ms:.1f}", f"{s.p95_ms:.1f}"]) for name, s in timing.stages.items()]
    if stages:
        columns = [Column("Median, ms"), Column("95th percentile, ms")]
        yield Table("Time per image and stage", columns, [("", stages)])
    else:
        yield Text("Stages were not timed.")


def reproducibility(report: Report) -> Iterator[Block]:
    """Yield the detector, files, versions and settings behind the figures."""
    settings = {name.replace("_", " "): value for name, value in report.settings.items()}
    yield Table("Detector, data and software", [Column("Value", words=True)], [("", _pairs(report.about))])
    yield Table("Settings", [Column("Value", words=True)], [("", _pairs(settings))])
    yield Text("The same inputs give the same `report.json`, byte for byte, except for its timing.")


def _pairs(values: Mapping[str, object]) -> list[Row]:
    return [(name, [Code(f"{value:g}" if isinstance(value, float) else str(value))]) for name, value in values.items()]


def failures(report: Report) -> Iterator[Block]:
    """Yield the images without a prediction."""
    if not report.failures:
        yield Text("None: every image was read and predicted.")
        return
    yield Text(
        f"{counted(len(report.failures), 'image')} could not be predicted. They are excluded from every figure and are "
        "not counted as healthy."
    )
    rows: list[Row] = [(name, [error]) for name, error in report.failures.items()]
    yield Table("Images without a prediction", [Column("Error", words=True)], [("", rows)])
