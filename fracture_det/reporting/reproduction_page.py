"""reproduction.html: the paper's tables and figures beside the ones that were made here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fracture_det.evaluation.comparison import Difference
from fracture_det.evaluation.report import SMALL_N, Estimate
from fracture_det.reporting import formatting
from fracture_det.reporting.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Files,
    Row,
    Section,
    SignedDifference,
    Table,
    Text,
)
from fracture_det.reporting.comparison_report import p_value
from fracture_det.reporting.figures import FOLDER, SUFFIXES, figure_path
from fracture_det.reporting.formatting import format_number
from fracture_det.reporting.html import render_page
from fracture_det.reporting.reproduction import (
    ABLATION,
    FIGURES,
    FILE,
    MODEL,
    MORE_FIGURES,
    Reproduction,
    TrainedModel,
    agreement,
)
from fracture_det.structures.wording import counted
from fracture_det.visualization.model_curves import TrainingCurves, draw_precision_recall, draw_trainings

PAGE_FILE = "reproduction.html"
# The rule of a report where validation gave no score.
FIXED_RULE = "paper"
TITLES = {
    "precision": "Precision",
    "recall": "Recall",
    "AP50": "mAP50",
    "AUROC": "AUROC, image",
    "FROC@1": "Lesion sensitivity at 1 false positive per image",
    "fps": "Radiographs per second",
}
HERE, PAPER = "here", "paper"
LOSS_NAME, CURVES_NAME = "trainings", "precision_recall"


def write_reproduction(result: Reproduction, folder: Path) -> None:
    """Write reproduction.json, reproduction.html and figures/ into `folder`; the same result gives the same page."""
    result.save(folder)
    (folder / FOLDER).mkdir(exist_ok=True)
    trainings = {one.title: TrainingCurves(one.training, one.validation, one.ap50) for one in result.models}
    curves = {one.title: (one.pr["recall"], one.pr["precision"]) for one in result.models}
    for suffix in SUFFIXES:
        draw_trainings(trainings, folder / figure_path(LOSS_NAME, suffix))
        draw_precision_recall(curves, folder / figure_path(CURVES_NAME, suffix))
    text = render_page(
        "page.html",
        folder,
        title="The paper's comparison made again",
        heading="The paper's comparison made again",
        summary_title="What agrees, and what does not",
        summary=" ".join(agreement(result)),
        notes=list(_notes(result)),
        sections=_sections(result),
        first_table="table-1",
        source=FILE,
        content="results give",
    )
    (folder / PAGE_FILE).write_text(text, encoding="utf-8", newline="\n")


def _notes(result: Reproduction) -> Iterator[str]:
    yield (
        "The paper's radiographs are not public. Its figures stand here for their order and differences; levels on "
        "other data cannot agree."
    )
    yield from _operating_points(result)
    yield f"Every detector had {result.about['budget']}. A longer training may change the order."
    if len(result.reference.ap50_by_seed) == 1:
        yield "One seed each: the intervals cover the sampling of patients, and not that of the trainings."
    else:
        yield (
            "All tables and curves are of the first seed of each detector, and their intervals cover the sampling of "
            "patients alone; the AP50 of every seed is below Figure 6."
        )
    for name, reason in result.failures.items():
        yield f"{name} is missing: {reason}"


def _operating_points(result: Reproduction) -> Iterator[str]:
    """Say where precision and recall come from, and which detectors have another rule than most."""
    titles: dict[str, list[str]] = {}
    for model in result.models:
        titles.setdefault(model.rule, []).append(model.title)
    fixed = titles.pop(FIXED_RULE, [])
    if titles:
        yield (
            "Precision and recall are at an operating point that was chosen on validation for each detector, since "
            "equal scores of different detectors mean different things; the paper takes .5."
        )
    if len(titles) > 1:
        rules = "; ".join(f"{formatting.rule_title(rule)}: {', '.join(names)}" for rule, names in titles.items())
        yield f"Validation did not reach one rule for all; precision and recall compare only within one: {rules}."
    if fixed:
        yield f"For {', '.join(fixed)} validation gave no operating point: precision and recall are at the paper's .5."


def _sections(result: Reproduction) -> list[Section]:
    contents = {
        ("table-1", "Table I: the detectors"): _table_1(result),
        ("table-2", "Table II: body parts"): _table_2(result),
        ("ablations", "Ablations"): _ablations(result),
        ("trainings", "Figure 6: trainings"): _trainings(result),
        ("curves", "Figure 7: precision and recall"): _curves(),
        ("other-tests", "Other radiographs"): _other_tests(result),
        ("reproducibility", "Reproducibility"): _reproducibility(result),
    }
    sections = [Section(name, title, list(blocks)) for (name, title), blocks in contents.items()]
    return [section for section in sections if section.blocks]


def _table_1(result: Reproduction) -> Iterator[Block]:
    counts = result.counts
    yield Text(
        f"{counted(counts['images_predicted'], 'test radiograph')}: {counts['images_fractured']:,} fractured, with "
        f"{counted(counts['boxes_truth'], 'annotated fracture')}, and {counts['images_healthy']:,} healthy. Each "
        "figure has its 95 % interval, by bootstrap over groups (of the speed: the slowest and the fastest round). A "
        f"box is right at IoU ≥ .5. {formatting.SMALL}: fewer than {SMALL_N} cases."
    )
    models = result.of_kind(MODEL)
    columns = [Column(where, TITLES[name]) for name in (*FIGURES, "fps") for where in (HERE, PAPER)]
    rows: list[Row] = []
    for model in models:
        cells: list[Cell] = []
        for name in FIGURES:
            cells += [_bare(model.figures[name]), _paper(model.paper, name)]
        fps = "not measured" if model.fps is None else _speed(model.fps)
        rows.append((model.title, [*cells, fps, f"{model.paper['fps']:g}" if "fps" in model.paper else None]))
    yield Table("Beside the paper's Table I", columns, [("", rows)], brief=True)
    rows = [(model.title, [_bare(model.figures[name]) for name in MORE_FIGURES]) for model in models]
    yield Table("What the paper does not state", [Column(TITLES[name]) for name in MORE_FIGURES], [("", rows)])
    yield from _differences(result, models[1:], f"{result.reference.title} minus each, on the same radiographs")


def _differences(result: Reproduction, models: Sequence[TrainedModel], caption: str) -> Iterator[Block]:
    if not models:
        return
    columns = [Column(HERE, TITLES["AP50"]), Column("p", TITLES["AP50"]), Column(PAPER, TITLES["AP50"])]
    columns += [Column(title, TITLES[name]) for name in MORE_FIGURES for title in (HERE, "p")]
    rows: list[Row] = []
    for model in models:
        ap50 = model.differences["AP50"]
        cells: list[Cell] = [_signed(ap50), p_value(ap50.p), _paper_difference(result.reference, model, "AP50")]
        for name in MORE_FIGURES:
            cells += [_signed(model.differences[name]), p_value(model.differences[name].p)]
        rows.append((model.title, cells))
    note = "By paired bootstrap over groups; p values without adjustment for multiple testing."
    yield Table(caption, columns, [("", rows)], note, brief=True)


def _table_2(result: Reproduction) -> Iterator[Block]:
    model = result.reference
    if not model.body_parts:
        yield Text("The test data say no body part.")
        return
    yield Text(f"{model.title}. Body parts have the paper's figures beside them where it has one of that name.")
    columns = [Column("images"), Column("fractures")]
    columns += [Column(where, TITLES[name]) for name in ("AP50", "precision", "recall") for where in (HERE, PAPER)]
    columns[:2] = [Column("images", "Test set"), Column("fractures", "Test set")]
    rows: list[Row] = []
    for part in model.body_parts:
        paper = result.paper_body_parts.get(part.name, {})
        cells: list[Cell] = [part.images, part.boxes]
        for name in ("AP50", "precision", "recall"):
            cells += [_bare(part.figures[name]) if name in part.figures else None, _paper(paper, name)]
        rows.append((part.name, cells))
    yield Table("Beside the paper's Table II", columns, [("", rows)], brief=True)


def _ablations(result: Reproduction) -> Iterator[Block]:
    models = result.of_kind(ABLATION)
    if not models:
        return
    yield Text(f"Each changes one thing of {result.reference.title} and is trained as long.")
    columns = [Column(HERE, "mAP50"), Column(PAPER, "mAP50"), *(Column(TITLES[name]) for name in MORE_FIGURES)]
    rows: list[Row] = [
        (
            model.title,
            [
                _bare(model.figures["AP50"]),
                _paper(model.paper, "AP50"),
                *(_bare(model.figures[name]) for name in MORE_FIGURES),
            ],
        )
        for model in (result.reference, *models)
    ]
    yield Table("Ablations", columns, [("", rows)])
    yield from _differences(result, models, f"{result.reference.title} minus each, on the same radiographs")


def _trainings(result: Reproduction) -> Iterator[Block]:
    yield Figure(
        LOSS_NAME,
        "Losses of each training, and the validation AP50 of all. Losses of different detectors mean different things: "
        "compare their course, not their height.",
        "A panel of training and validation loss for each detector, and one with the validation AP50 of all; the table "
        "below has the lengths and results.",
    )
    seeds = max(len(model.ap50_by_seed) for model in result.models)
    columns = [Column("Iterations"), Column("Hours"), Column("Best validation AP50")]
    columns += [Column("AP50 by seed", words=True)] if seeds > 1 else []
    rows: list[Row] = []
    for model in result.models:
        best = format_number(max(value for _, value in model.ap50)) if model.ap50 else None
        by_seed = ", ".join("none" if value is None else format_number(value) for value in model.ap50_by_seed)
        rows.append((model.title, [model.iterations, f"{model.hours:.2f}", best, *([by_seed] if seeds > 1 else [])]))
    note = "Hours are of the training steps alone, without validation, as they were timed on this machine."
    yield Table("Trainings", columns, [("", rows)], note)


def _curves() -> Iterator[Block]:
    yield Figure(
        CURVES_NAME,
        "Precision-recall curves of all detectors on the test radiographs, at IoU .5.",
        "Precision over recall, one line for each detector; their AP50 is in Table I and in the ablations.",
    )


def _other_tests(result: Reproduction) -> Iterator[Block]:
    for index, test in enumerate(result.reference.other_tests):
        rows: list[Row] = []
        for model in result.models:
            figures = model.other_tests[index].figures if index < len(model.other_tests) else {}
            names = ("AP50", *MORE_FIGURES)
            rows.append((model.title, [_bare(figures[name]) if name in figures else None for name in names]))
        columns = [Column(TITLES[name]) for name in ("AP50", *MORE_FIGURES)]
        yield Table(f"On {test.name}, thresholds unchanged", columns, [("", rows)])


def _reproducibility(result: Reproduction) -> Iterator[Block]:
    rows: list[Row] = [(name, [text]) for name, text in result.about.items()]
    yield Table("What this was made with", [Column("", words=True)], [("", rows)])
    rows = [
        (model.title, [model.detector, f"{formatting.rule_title(model.rule)}, score {format_number(model.score)}"])
        for model in result.models
    ]
    columns = [Column("Weights", words=True), Column("Operating point", words=True)]
    yield Table("Detectors", columns, [("", rows)])
    yield Files([(model.report, f"evaluation of {model.title}") for model in result.models])


def _bare(estimate: Estimate) -> Estimate:
    """Return a figure with its interval, but without Wilson's, for tables of many columns."""
    return Estimate(estimate.value, estimate.low, estimate.high, n=estimate.n, reason=estimate.reason)


def _signed(difference: Difference) -> SignedDifference:
    return SignedDifference(Estimate(difference.value, difference.low, difference.high, reason=difference.reason))


def _speed(fps: Estimate) -> str:
    one_round = fps.low is None or fps.high is None or fps.low == fps.high
    interval = "" if one_round else f" ({fps.low:.2g} to {fps.high:.2g})"
    return f"{fps.value:.2g}{interval}"


def _paper(paper: dict[str, float], name: str) -> str | None:
    return format_number(paper[name]) if name in paper else None


def _paper_difference(reference: TrainedModel, model: TrainedModel, name: str) -> str | None:
    if name not in reference.paper or name not in model.paper:
        return None
    return format_number(reference.paper[name] - model.paper[name], signed=True)
