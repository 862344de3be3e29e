"""verdict.html: whether a candidate may replace the served detector, for the person who has to answer for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fracture_det.evaluation.report import Estimate
from fracture_det.evaluation.verdict import (
    FAILED,
    NOT_DEFINED,
    NOT_JUDGED,
    PASSED,
    SKIPPED,
    TOO_SMALL,
    VERDICT_FILE,
    FigureResult,
    StratumResult,
    TestResult,
    Verdict,
)
from fracture_det.reporting.blocks import Block, Cell, Code, Column, Figure, Row, Section, SignedDifference, Table, Text
from fracture_det.reporting.figures import FOLDER, SUFFIXES, figure_path
from fracture_det.reporting.formatting import DASH, column_title, format_number
from fracture_det.reporting.html import render_page
from fracture_det.structures.wording import counted
from fracture_det.visualization.margins import FAILS, HOLDS, UNDECIDED, MarginRow, draw_margins

PAGE_FILE = "verdict.html"
FOREST = "margins"
TITLES = {
    "AP50": "AP50",
    "AUROC": "AUROC, image",
    "FROC@1": "Fractures found at 1 false positive per image",
    "image": "ECE of image probabilities",
    "box": "ECE of box probabilities",
}
# In the figure and in narrow columns.
SHORT_TITLES = {"FROC@1": "FROC at 1", "image": "ECE, images", "box": "ECE, boxes"}
CHECKS = {
    "leaks": "No test image was trained on",
    "tests": "Nothing is lost on any test",
    "better": "Something is better",
    "strata": "No subgroup falls",
    "failures": "No image fails anew",
    "calibration": "Probabilities stay true",
    "robustness": "Poor images are read as before",
    "speed": "It is fast enough",
    "size": "It is small enough",
}
RESULTS = {
    PASSED: "✓ holds",
    FAILED: "✗ does not hold",
    NOT_JUDGED: "not judged: stops the promotion",
    SKIPPED: "not judged, skipped on demand",
    TOO_SMALL: "too small to decide",
    NOT_DEFINED: "not defined",
}
OUTCOMES = {PASSED: HOLDS, FAILED: FAILS, TOO_SMALL: UNDECIDED}
FOREST_FIGURE = Figure(
    FOREST,
    "Differences, candidate minus served detector, on the same images. The line runs from one one-sided 95 % bound to "
    "the other; the bar is the margin, which the near end of the line must not touch. AP50, AUROC and FROC should be "
    "high: their margin is on the left. A calibration error (ECE) should be low: its margin is on the right.",
    "Forest plot of the differences with their bounds and margins; the values are in the tables of the tests.",
)
READING = (
    "A difference is the candidate minus the served detector on the same images; the bound says how bad it may still "
    "be, at 95 % certainty, by a bootstrap over groups (one patient, or copies of one image). That nothing is lost "
    "must be shown for every figure on every test, which needs no correction for their number; for “better” the p "
    "values are corrected by Holm's method. FROC: the share of marked fractures found at 1 false positive per image. "
    "ECE: by how much stated and observed probabilities differ."
)


def write_verdict(verdict: Verdict, folder: Path) -> Path:
    """Write verdict.json, verdict.html and figures/ into `folder`, and return the page; equal verdicts, equal bytes."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    (folder / VERDICT_FILE).write_text(verdict.to_json(), encoding="utf-8", newline="\n")
    for suffix in SUFFIXES:
        draw_margins(
            list(_forest(verdict)),
            folder / figure_path(FOREST, suffix),
            title="Candidate minus served detector, with one-sided 95 % bounds and margins",
            xlabel="Difference",
        )
    text = render_page(
        "page.html",
        folder,
        title=f"{headline(verdict)}: {verdict.candidate.name}",
        heading=headline(verdict),
        summary_title="Why",
        summary=summary(verdict),
        notes=verdict.notes,
        sections=_sections(verdict),
        first_table="checks",
        source=VERDICT_FILE,
        content="verdict gives",
    )
    path = folder / PAGE_FILE
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def headline(verdict: Verdict) -> str:
    """Return the verdict, the first line of all."""
    return "Promote" if verdict.promote else "Do not promote"


def summary(verdict: Verdict) -> str:
    """Return what the verdict means for which detector, and its reasons, in sentences."""
    if not verdict.promote:
        return " ".join(
            [f"{verdict.served.name} stays; {verdict.candidate.name} does not replace it.", *verdict.reasons]
        )
    details = {check.name: check.detail for check in verdict.checks}
    skipped = [check.detail for check in verdict.checks if check.status == SKIPPED]
    means = f"{verdict.candidate.name} may replace {verdict.served.name}."
    return " ".join([means, details["tests"], details["better"], details["strata"], *skipped])


def _sections(verdict: Verdict) -> list[Section]:
    contents: dict[tuple[str, str], Iterable[Block]] = {
        ("checks", "What was asked of it"): _checks(verdict),
        ("tests", "Tests"): _tests(verdict),
        ("strata", "Subgroups"): _strata(verdict),
        ("more", "Robustness, speed and size"): _more(verdict),
        ("leaks", "Test images in the training data"): _leaks(verdict),
        ("provenance", "What this rests on"): _provenance(verdict),
    }
    return [Section(name, title, list(blocks)) for (name, title), blocks in contents.items()]


def _checks(verdict: Verdict) -> Iterator[Block]:
    rows: list[Row] = [
        (CHECKS.get(check.name, check.name), [RESULTS[check.status], check.detail]) for check in verdict.checks
    ]
    yield Table("All of these must hold", [Column("Result", words=True), Column("Finding", words=True)], [("", rows)])


# --- tests -----------------------------------------------------------------------------------------------------------


def _tests(verdict: Verdict) -> Iterator[Block]:
    yield FOREST_FIGURE
    for test in verdict.tests:
        rows = [_figure_row(one) for one in (*test.figures, *test.calibration)]
        columns = [
            Column("Served"),
            Column("Candidate"),
            Column("Difference"),
            Column("95 % bound"),
            Column("Margin"),
            Column("Result", words=True),
        ]
        note = f"Calibration: {test.no_calibration}." if test.no_calibration else ""
        yield Table(_caption(test), columns, [("", rows)], note=note, brief=True)
    yield Text(READING)


def _caption(test: TestResult) -> str:
    counts = test.counts
    small = " (too small to decide)" if test.small else ""
    return (
        f"{test.name}{small}: {counted(counts['images'], 'image')}, {counts['images_fractured']:,} fractured with "
        f"{counted(counts['boxes_truth'], 'marked fracture')}, {counted(counts['groups'], 'group')}"
    )


def _figure_row(one: FigureResult) -> Row:
    difference: Cell = SignedDifference(Estimate(one.difference, reason=one.reason))
    cells: list[Cell] = [
        _bare(one.served),
        _bare(one.candidate),
        None if one.difference is None else difference,
        _signed(_bound(one)),
        _signed(one.margin),
        _result(one),
    ]
    return TITLES.get(one.figure, one.figure), cells


def _bare(figure: Estimate) -> Estimate:
    return Estimate(figure.value, figure.low, figure.high, reason=figure.reason)


def _bound(one: FigureResult) -> float | None:
    return one.upper if one.margin > 0 else one.lower


def _signed(value: float | None) -> str:
    return DASH if value is None else format_number(value, signed=True)


def _result(one: FigureResult) -> str:
    words = RESULTS[one.status]
    if one.status == NOT_DEFINED:
        return f"{words}: {one.reason}"
    return f"{words}; better" if one.better else words


def _forest(verdict: Verdict) -> Iterator[MarginRow]:
    for test in verdict.tests:
        yield MarginRow(test.name)
        for one in (*test.figures, *test.calibration):
            label = SHORT_TITLES.get(one.figure, one.figure)
            if one.difference is None:
                yield MarginRow(label, margin=one.margin, note="not defined")
            else:
                note = "better" if one.better else ""
                yield MarginRow(
                    label, one.difference, one.lower, one.upper, one.margin, OUTCOMES[one.status], note
                )  # fmt: skip


# --- subgroups and the rest ------------------------------------------------------------------------------------------


def _strata(verdict: Verdict) -> Iterator[Block]:
    least, margins = verdict.rules["strata"]["min_images"], verdict.rules["strata"]["margins"]
    limits = ", ".join(f"{TITLES[name]} {_signed(-margin)}" for name, margin in margins.items())
    yield Text(
        f"A subgroup of at least {least} images falls when a difference lies below its margin ({limits}) and the whole "
        "two-sided 90 % interval of it lies below zero. Each cell: the difference and that interval."
    )
    for test in verdict.tests:
        if not test.strata:
            yield Text(f"{test.name} has no subgroup of at least {least} images.")
            continue
        figures = [one.figure for one in test.strata[0].figures]
        columns = [Column("Images, fractured"), *(Column(SHORT_TITLES.get(name, name)) for name in figures)]
        columns.append(Column("Result", words=True))
        parts: dict[str, list[Row]] = {}
        for stratum in test.strata:
            parts.setdefault(column_title(stratum.column), []).append(_stratum_row(stratum))
        yield Table(f"Subgroups of {test.name}: candidate minus served detector", columns, list(parts.items()))


def _stratum_row(stratum: StratumResult) -> Row:
    fallen = [SHORT_TITLES.get(one.figure, one.figure) for one in stratum.figures if one.status == FAILED]
    cells: list[Cell] = [f"{stratum.n_images:,}, {stratum.n_fractured:,}"]
    for one in stratum.figures:
        interval = "" if one.lower is None else f" ({_signed(one.lower)} to {_signed(one.upper)})"
        cells.append(None if one.difference is None else _signed(one.difference) + interval)
    return stratum.value, [*cells, f"✗ falls: {', '.join(fallen)}" if fallen else RESULTS[PASSED]]


def _more(verdict: Verdict) -> Iterator[Block]:
    details = {check.name: check for check in verdict.checks}
    if verdict.robustness:
        rows: list[Row] = [
            (
                f"{one.test}, {one.figure}",
                [
                    f"{_signed(one.mean)} (margin {_signed(one.margin_mean)})",
                    f"{_signed(one.worst)} (margin {_signed(one.margin_worst)})",
                    one.worst_perturbation,
                    RESULTS[one.status],
                ],
            )
            for one in verdict.robustness
        ]
        columns = [Column("All perturbations"), Column("Worst one"), Column("Which", words=True)]
        columns.append(Column("Result", words=True))
        yield Table("Candidate minus served detector on perturbed images", columns, [("", rows)])
    else:
        yield Text(details["robustness"].detail)
    if verdict.ratios:
        units = {"speed": ("ms per image", 1, 1), "size": ("MB", 1e6, 1)}
        rows = []
        for ratio in verdict.ratios:
            unit, scale, digits = units[ratio.name]
            numbers = [f"{value / scale:,.{digits}f}" for value in (ratio.served, ratio.candidate)]
            cells: list[Cell] = [*numbers, f"{ratio.ratio:.2f}", f"{ratio.limit:g}", RESULTS[ratio.status]]
            rows.append((f"{ratio.name.capitalize()}, {unit}", cells))
        columns = [
            Column("Served"),
            Column("Candidate"),
            Column("Ratio"),
            Column("Limit"),
            Column("Result", words=True),
        ]
        yield Table("Both measured in turns on the same machine and images", columns, [("", rows)])
    else:
        yield Text(f"{details['speed'].detail} {details['size'].detail}")


def _leaks(verdict: Verdict) -> Iterator[Block]:
    if not verdict.leaks:
        yield Text(next(check.detail for check in verdict.checks if check.name == "leaks"))
        return
    rows: list[Row] = [
        (leak.image, [leak.test, leak.how, f"{leak.training_image} of {leak.training}"]) for leak in verdict.leaks
    ]
    columns = [Column("Test", words=True), Column("How", words=True), Column("Training image", words=True)]
    yield Table("Test images that the candidate was trained on", columns, [("", rows)])


def _provenance(verdict: Verdict) -> Iterator[Block]:
    detectors = {"Served detector": verdict.served, "Candidate": verdict.candidate}
    rows: list[Row] = [(title, [one.name, Code(one.sha256)]) for title, one in detectors.items()]
    for test in verdict.tests:
        rows += [(f"{test.name}, {role}", [DASH, Code(digest)]) for role, digest in test.files.items()]
    rows += [(role, [DASH, Code(digest)]) for role, digest in verdict.files.items()]
    yield Table(
        "Detectors and files",
        [Column("Name", words=True), Column("SHA-256", words=True)],
        [("", rows)],
        note="Truth and predictions of each test, and the files given beside them.",
    )
    about: list[Row] = [(name, [Code(value)]) for name, value in verdict.about.items()]
    about += [(name, [Code(value)]) for name, value in _flat(verdict.rules)]
    yield Table("Rules and versions", [Column("Value", words=True)], [("", about)])


def _flat(rules: dict[str, object], above: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    for name, value in rules.items():
        if isinstance(value, dict):
            yield from _flat(value, (*above, name))
        else:
            yield ".".join((*above, name)), str(value)
