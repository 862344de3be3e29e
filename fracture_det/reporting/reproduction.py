"""What making the paper's comparison again has given, in reproduction.json, and what of it agrees with the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fracture_det.evaluation.comparison import Difference
from fracture_det.evaluation.report import Estimate, from_json, to_json
from fracture_det.reporting.formatting import format_number
from fracture_det.structures.wording import counted

FORMAT, VERSION = "fracture_det reproduction", 1
FILE = "reproduction.json"
MODEL, ABLATION = "model", "ablation"
# The paper's Table I, and what is set beside it.
FIGURES = ("precision", "recall", "AP50")
MORE_FIGURES = ("AUROC", "FROC@1")


@dataclass(frozen=True)
class BodyPart:
    """The figures of one body part: AP50, precision, recall. images: number of test images, boxes: marked fractures."""

    name: str
    images: int
    boxes: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class OtherTest:
    """The figures on another test set, thresholds unchanged."""

    name: str
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class TrainedModel:
    """One detector of the comparison.

    kind: MODEL or ABLATION. detector: its name with its weights. report: its evaluation, a path beside the page.
    rule, score: its operating point, chosen on validation. figures: FIGURES and MORE_FIGURES.
    fps: radiographs per second on this machine, low and high over the rounds; None where it was not measured.
    paper: the paper's figures, 0..1, and fps. differences: the first model minus this one, by figure; {} for the first.
    ap50_by_seed: of every seed that was trained. iterations, hours: of its training, of the first seed.
    body_parts: the paper's Table II. pr: recall and precision. training, validation, ap50: points over iterations.
    """

    name: str
    title: str
    kind: str
    detector: str
    report: str
    rule: str
    score: float
    figures: dict[str, Estimate]
    fps: Estimate | None
    paper: dict[str, float]
    differences: dict[str, Difference]
    ap50_by_seed: list[float | None]
    iterations: int
    hours: float
    body_parts: list[BodyPart]
    pr: dict[str, list[float]]
    training: list[tuple[float, float]]
    validation: list[tuple[float, float]]
    ap50: list[tuple[float, float]]
    other_tests: list[OtherTest] = field(default_factory=list)


@dataclass(frozen=True)
class Reproduction:
    """All of it; the first model is the reference. about: data, budget, machine, versions, in words.

    synthetic: the radiographs were drawn, to try the way out. counts: of the test images. failures: run -> why.
    paper_body_parts: the paper's Table II.
    """

    about: dict[str, str]
    synthetic: bool
    counts: dict[str, int]
    models: list[TrainedModel]
    paper_body_parts: dict[str, dict[str, float]]
    failures: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write reproduction.json into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(to_json(FORMAT, VERSION, self), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Reproduction:
        """Read the reproduction.json in `folder`. Raises ReportError naming file, field and value."""
        return from_json(folder / FILE, cls, FORMAT, VERSION)

    @property
    def reference(self) -> TrainedModel:
        """The model that all others are compared with."""
        return self.models[0]

    def of_kind(self, kind: str) -> list[TrainedModel]:
        """Return the models, or the ablations."""
        return [model for model in self.models if model.kind == kind]


def agreement(result: Reproduction) -> Iterator[str]:
    """Yield sentences on what agrees with the paper and what does not, made from the figures alone."""
    if result.synthetic:
        yield (
            "These radiographs are drawn and the trainings short: this run shows that every step works, and nothing "
            "about any detector."
        )
        return
    models = [model for model in result.of_kind(MODEL) if _value(model) is not None]
    if len(models) > 1:
        yield from _order(models)
        yield from _pairs(result.reference, models[1:])
    for model in result.of_kind(ABLATION):
        yield _ablation(result.reference, model)
    yield from _level(models)


def _order(models: Sequence[TrainedModel]) -> Iterator[str]:
    in_paper = sorted(models, key=lambda model: -model.paper["AP50"])
    here = sorted(models, key=lambda model: -(_value(model) or 0.0))
    papers = ", ".join(f"{model.title} {format_number(model.paper['AP50'])}" for model in in_paper)
    ours = ", ".join(f"{model.title} {format_number(_value(model) or 0.0)}" for model in here)
    if len({format_number(_value(model) or 0.0) for model in models}) < len(models):
        yield f"By AP50 the paper's order is {papers}; here it is {ours}, of which some are equal."
        return
    same = [model.name for model in in_paper] == [model.name for model in here]
    yield f"By AP50 the paper's order is {papers}; here it is {ours}: {'the same' if same else 'another'} order."


def _pairs(reference: TrainedModel, others: Sequence[TrainedModel]) -> Iterator[str]:
    kinds: dict[str, list[str]] = {}
    for other in others:
        paper = reference.paper["AP50"] - other.paper["AP50"]
        kinds.setdefault(_verdict(other.differences["AP50"], paper, reference.title), []).append(other.title)
    for verdict, titles in kinds.items():
        yield f"{_listed(titles)}: {verdict}."


def _verdict(difference: Difference, paper: float, first: str) -> str:
    if difference.value is None:
        return f"no difference of AP50 to {first} is defined here ({difference.reason})"
    if difference.low is None or difference.high is None:
        return "there is no interval of the difference of AP50, so that nothing can be said"
    if difference.low <= 0 <= difference.high:
        return f"these data cannot tell AP50 from that of {first}: the interval of the difference includes 0"
    agrees = "as" if difference.value * paper > 0 else "unlike"
    side = "below" if difference.value > 0 else "above"
    return f"{agrees} in the paper, AP50 is {side} that of {first}, and the interval of the difference excludes 0"


def _ablation(reference: TrainedModel, model: TrainedModel) -> str:
    difference = model.differences["AP50"]
    if difference.value is None:
        return f"{model.title}: no difference of AP50 is defined ({difference.reason})."
    text = f"{model.title}: AP50 {_change(-difference.value)}"
    if difference.low is not None and difference.high is not None:
        within = "includes" if difference.low <= 0 <= difference.high else "excludes"
        low, high = format_number(-difference.high, signed=True), format_number(-difference.low, signed=True)
        text += f" ({low} to {high}; the interval {within} 0)"
    if "AP50" in model.paper and "AP50" in reference.paper:
        text += f"; in the paper {_change(model.paper['AP50'] - reference.paper['AP50'])}"
    return text + "."


def _level(models: Sequence[TrainedModel]) -> Iterator[str]:
    gaps = [model.paper["AP50"] - (_value(model) or 0.0) for model in models]
    if gaps:
        below = sum(gap > 0 for gap in gaps)
        how_many = f"{below or 'None'} of {counted(len(gaps), 'detector')}"
        low, high = (format_number(gap, signed=True) for gap in (min(gaps), max(gaps)))
        yield (
            f"{how_many} here {'has' if below == 1 else 'have'} an AP50 below the paper's; the paper's minus that here "
            f"is {low if len(gaps) == 1 else f'{low} to {high}'}. The paper's data are "
            "not public: only orders and differences can be compared, not levels."
        )


def _change(value: float) -> str:
    return format_number(value, signed=True)


def _value(model: TrainedModel) -> float | None:
    return model.figures["AP50"].value


def _listed(titles: Sequence[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
