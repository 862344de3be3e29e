"""Types of fracture, as a section of a report; only of a detector that tells types, on images whose type is known."""

from __future__ import annotations

from collections.abc import Iterator

from fracture_det.evaluation.report import AboveChance, Estimate, Report, Types
from fracture_det.reporting.blocks import Block, Cell, Column, Figure, Row, SideBySide, SignedDifference, Table, Text
from fracture_det.reporting.formatting import TITLES, format_number
from fracture_det.structures.wording import counted

SECTION = ("types", "Types of fracture")
CONFUSION, COVERAGE, RELIABILITY = "types_confusion", "types_coverage", "types_reliability"
FIGURES = (CONFUSION, COVERAGE, RELIABILITY)
NO_ANSWER = "no answer"
POPULATIONS = {
    "answered": "Images with an answer",
    "fractured": "All images of known type; those without an answer count as wrong",
}
FIGURE_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1, over the types that there are",
    "top2": "Right among the two most probable types",
    "brier": "Brier score, 0 to 2, smaller is better",
}
GAINED = "AP50 gained"
BOX_TITLES = {
    "AP50": "AP50",
    "AP50 by score alone": "AP50 by score alone",
    GAINED: "Gained by the types",
    "FROC@0.5": "½",
    "FROC@1": "1",
    "FROC@2": "2",
}


def types_section(report: Report) -> Iterator[Block]:
    """Yield figures and tables of the types of a report that has them."""
    types = report.types
    if types is None:
        return
    n, answered = _n(types.fractured["accuracy"]), _n(types.answered["accuracy"])
    yield Text(
        f"Asked of {counted(n, 'fractured image')} with one known type. The answer is the most probable type, by the "
        f"mean of the boxes' probabilities weighted by their scores; {n - answered:,} of the images have no box with "
        "types, and so no answer. Chance always gives the most frequent type."
    )
    yield Figure(
        CONFUSION,
        "Confusion table: true types in rows, with their number of images, answers in columns.",
        "Heat map of true types against answers; the shares are in a table below.",
    )
    yield _against_chance(types)
    yield _by_type(types)
    yield _confusion(types)
    yield SideBySide(
        [
            Figure(
                COVERAGE,
                "Accuracy of the answers above a confidence (the probability of the answer), against their share of "
                "the images.",
                "Curve of accuracy against coverage; values at some confidences are in the table below.",
            ),
            Figure(
                RELIABILITY,
                "Reliability of the answers: how often they are right, against their confidence.",
                "Reliability diagram of the answers; its bins are in the table below.",
            ),
        ]
    )
    yield from _above(types)
    yield from _reliability(types)
    yield from _boxes(types)


def present(types: Types) -> tuple[list[str], list[int]]:
    """Return the names of the rows of the confusion table that have an image, and the columns that have an answer.

    The last column, of images without an answer, is always there.
    """
    rows = [name for name, cells in zip(types.names, types.confusion, strict=True) if cells[0].n]
    used = [any(cells[index].count for cells in types.confusion) for index in range(len(types.names))]
    columns = [index for index, name in enumerate(types.names) if used[index] or name in rows]
    return rows, [*columns, len(types.names)]


def column_names(types: Types, columns: list[int]) -> list[str]:
    """Return the names of columns of the confusion table."""
    return [[*types.names, NO_ANSWER][index] for index in columns]


def _n(figure: AboveChance) -> int:
    return figure.detector.n or 0


def _against_chance(types: Types) -> Table:
    columns = [Column("Detector"), Column("Chance"), Column("Difference")]
    parts = []
    for key, title in POPULATIONS.items():
        rows: list[Row] = [
            (FIGURE_TITLES.get(name, name), [one.detector, one.chance, SignedDifference(one.difference)])
            for name, one in getattr(types, key).items()
        ]
        parts.append((title, rows))
    note = (
        "Chance: always the most frequent type (of two types, the two most frequent); its Brier score is that of "
        "always giving the shares of the types."
    )
    return Table("Answers against chance", columns, parts, note)


def _by_type(types: Types) -> Table:
    names = list(dict.fromkeys(name for row in types.rows for name in row.figures))
    rows: list[Row] = [(row.name, [row.n, *(row.figures.get(name) for name in names)]) for row in types.rows]
    columns = [Column("Images"), *(Column(TITLES.get(name, name)) for name in names)]
    note = (
        "Of the images with an answer: precision is the share of the answers that is right, recall that of the images."
    )
    return Table("Answers by type", columns, [("", rows)], note)


def _confusion(types: Types) -> Table:
    parts: list[tuple[str, list[Row]]] = []
    for name, cells in zip(types.names, types.confusion, strict=True):
        given = zip([*types.names, NO_ANSWER], cells, strict=True)
        ordered = sorted(given, key=lambda pair: -(pair[1].count or 0))
        rows: list[Row] = [(answer, [cell]) for answer, cell in ordered if cell.count]
        parts += [(f"True type: {name}", rows)] if rows else []
    note = "An answer that is not listed for a type was never given for it."
    return Table("Answers to each true type", [Column("Share of the images of this type")], parts, note)


def _above(types: Types) -> Iterator[Block]:
    rows: list[Row] = [
        (format_number(row.confidence), [row.origin or "-", row.coverage, row.accuracy]) for row in types.above
    ]
    columns = [Column("Chosen by", words=True), Column("Coverage"), Column("Accuracy")]
    note = "Coverage: share of all images of known type that have an answer of at least this confidence."
    yield Table("Answers above a confidence", columns, [("", rows)], note)
    if types.not_reached is not None:
        yield Text(f"No confidence was frozen on validation data: {types.not_reached}.")
    elif all(not row.origin for row in types.above):
        yield Text("No confidence was frozen on validation data: run with `--val`.")


def _reliability(types: Types) -> Iterator[Block]:
    figures, bins = types.reliability.figures, types.reliability.bins
    titles = {"Brier": "Brier score of the confidence", "Brier of the base rate": "Brier score of the accuracy"}
    columns = [Column(titles.get(name, TITLES.get(name, name))) for name in figures]
    yield Table("Calibration error of the confidence", columns, [("", [("Answers", list(figures.values()))])])
    rows: list[Row] = [
        (f"{format_number(one.low, 2)} to {format_number(one.high, 2)}", _bin(one.n, one.mean_score, one.rate))
        for one in bins
    ]
    columns = [Column("Number"), Column("Mean confidence"), Column("Accuracy")]
    yield Table("Bins of the reliability diagram, answers", columns, [("", rows)])


def _bin(n: int, mean: float | None, rate: Estimate) -> list[Cell]:
    return [n, None if mean is None else format_number(mean), rate if n else None]


def _boxes(types: Types) -> Iterator[Block]:
    rows: list[Row] = [
        (row.name, [SignedDifference(one) if name == GAINED else one for name, one in row.boxes.items()])
        for row in types.rows
        if row.boxes
    ]
    if not rows:
        yield Text("By box: not measured, since no annotated fracture has a type of its own.")
        return
    names = next(row.boxes for row in types.rows if row.boxes)
    columns = [
        Column(BOX_TITLES.get(name, name), "Sensitivity at false positives per image" if "FROC" in name else "AP50")
        for name in names
    ]
    note = (
        "Each type as if it were the only one, at IoU ≥ .5: a box has its score times the probability of the type, and "
        "only fractures of that type are to be found. By score alone: the same without that probability."
    )
    yield Table("Boxes by type", columns, [("", rows)], note)
