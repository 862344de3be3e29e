"""A comparison as Markdown, drawn from the Comparison alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fracture_det.evaluation.comparison import Compared, Comparison, Difference, Pair
from fracture_det.evaluation.report import SMALL_N, Estimate
from fracture_det.evaluation.significance import DeLong, McNemar
from fracture_det.reporting.formatting import DASH, RESEARCH_ONLY, SMALL, UNDEFINED, counted, number, written
from fracture_det.reporting.markdown import escaped, table

TITLES = {
    "AP": "AP, IoU .50 to .95",
    "AP50": "AP50",
    "AUROC": "AUROC, image",
    "FROC@0.5": "Lesion sensitivity at .5 false positives per image",
    "FROC@1": "Lesion sensitivity at 1 false positive per image",
    "FROC@2": "Lesion sensitivity at 2 false positives per image",
    "FROC mean": "Lesion sensitivity, mean over ⅛ to 8 false positives per image",
    "precision": "Precision, boxes, at the operating score",
    "recall": "Recall, boxes, at the operating score",
    "sensitivity": "Sensitivity, image, at the operating score",
    "specificity": "Specificity, image, at the operating score",
}
READING = (
    "Every figure is of the same images. A figure is followed by its 95 % interval, from a bootstrap that draws whole "
    "groups (a group is one patient, or copies of one image), and by the cases that it rests on.",
    "A difference is the first detector minus the other, on the same drawn groups, so that it is known better than the "
    "two single intervals suggest. p says how easily resampling brings the difference to 0: below .05 the 95 % "
    "interval leaves out 0.",
    "McNemar's test looks only at images that one detector calls rightly and the other does not (exact; interval by "
    "Newcombe 1998, method 10). DeLong's test compares the areas under the two image-level ROC curves. Both take "
    "images as independent.",
    "A p value above .05 does not show that two detectors are equal; the interval shows how far apart they may be.",
)


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    parts = [
        "# Comparison of fracture detectors",
        f"*{RESEARCH_ONLY}*",
        escaped(_opening(comparison)),
        "## To be known first",
        _bullets(comparison.notes) or "Nothing out of the ordinary.",
        "## Side by side",
        *_side_by_side(comparison.detectors),
    ]
    for pair in comparison.pairs:
        parts += list(_pair(pair, comparison))
    parts += ["## How to read this", _bullets(READING)]
    if comparison.about:
        parts += ["## What was compared", table(("", ""), [_escaped(*row) for row in comparison.about.items()])]
    parts.append(_settings(comparison))
    return "\n\n".join(parts) + "\n"


def p_value(p: float | None) -> str:
    """Return a p value as it is printed: .027, <.001."""
    if p is None:
        return DASH
    return "<.001" if p < 0.001 else number(p)


def _opening(comparison: Comparison) -> str:
    counts = comparison.counts
    names = [one.name for one in comparison.detectors]
    return (
        f"{', '.join(names[:-1])} and {names[-1]} were compared on the same "
        f"{counted(counts['images_compared'], 'radiograph')} from {counted(counts['groups'], 'group')}: "
        f"{counts['images_fractured']:,} fractured, with {counted(counts['boxes_truth'], 'marked fracture')}, and "
        f"{counts['images_healthy']:,} healthy."
    )


def _plain_words(pair: Pair) -> Iterator[str]:
    """Yield sentences: which differences the data show, and who calls what."""
    shown = [
        f"{TITLES.get(name, name).split(',')[0]} ({number(one.value, signed=True)})"
        for name, one in pair.differences.items()
        if one.value is not None and one.low is not None and one.high is not None and not one.low <= 0 <= one.high
    ]
    told = [one for one in pair.differences.values() if one.low is not None]
    if shown:
        others = " All other intervals hold it." if len(told) > len(shown) else ""
        yield f"Differences whose interval leaves out 0: {'; '.join(shown)}.{others}"
    elif told:
        yield "The interval of every difference holds 0: these radiographs do not tell the two apart."
    yield from _calls(pair)


def _calls(pair: Pair) -> Iterator[str]:
    """Yield who calls what, at the operating scores."""
    called, clear = pair.sensitivity, pair.specificity
    if called.n:
        yield (
            f"Of {counted(called.n, 'fractured radiograph')}, both {pair.first} and {pair.other} called "
            f"{called.both:,}, only {pair.first} {called.only_a:,}, only {pair.other} {called.only_b:,} and neither "
            f"{called.neither:,}."
        )
    if clear.n:
        yield (
            f"Of {counted(clear.n, 'healthy radiograph')}, both wrongly called {clear.neither:,}, "
            f"only {pair.first} {clear.only_b:,} and only {pair.other} {clear.only_a:,}."
        )


def _side_by_side(detectors: list[Compared]) -> Iterator[str]:
    rows = [["Operating score", *(number(one.score) for one in detectors)]]
    rows += [
        [TITLES.get(name, name), *(_cell(one.figures[name]) for one in detectors)] for name in detectors[0].figures
    ]
    yield table(_escaped("", *(one.name for one in detectors)), [_escaped(*row) for row in rows])
    cells = "".join(cell for row in rows for cell in row)
    marks = {SMALL: f"rests on fewer than {SMALL_N}", UNDEFINED: "so many resamples in which it was not defined"}
    legend = [f"{mark} {meaning}" for mark, meaning in marks.items() if mark in cells]
    if legend:
        yield f"{'; '.join(legend)}."


def _cell(estimate: Estimate) -> str:
    figure = written(estimate)
    return ", ".join(part for part in (figure.lines[0], figure.basis) if part)


def _pair(pair: Pair, comparison: Comparison) -> Iterator[str]:
    by_name = {one.name: one for one in comparison.detectors}
    yield f"## {escaped(pair.first)} against {escaped(pair.other)}"
    yield escaped(" ".join(_plain_words(pair)))
    rows = []
    for name, difference in pair.differences.items():
        values = (by_name[one].figures[name].value for one in (pair.first, pair.other))
        single = (DASH if value is None else number(value) for value in values)
        rows.append(_escaped(TITLES.get(name, name), *single, *_difference(difference)))
    header = _escaped("", pair.first, pair.other, "Difference", "95 % interval", "p")
    yield table(header, rows)
    header = _escaped(
        "Calls at the operating scores", "Both right", f"Only {pair.first}", f"Only {pair.other}", "Neither",
        "Difference", "95 % interval", "p (McNemar)",
    )  # fmt: skip
    sensitivity = _escaped("Fractured images, called", *_mcnemar(pair.sensitivity))
    yield table(header, [sensitivity, _escaped("Healthy images, not called", *_mcnemar(pair.specificity))])
    yield escaped(f"AUROC by DeLong: {_delong(pair.auroc)}.")


def _difference(one: Difference) -> tuple[str, str, str]:
    if one.value is None:
        return f"not defined: {one.reason}", DASH, DASH
    return number(one.value, signed=True), _interval(one.low, one.high), p_value(one.p)


def _mcnemar(one: McNemar) -> tuple[str, ...]:
    counts = tuple(f"{count:,}" for count in (one.both, one.only_a, one.only_b, one.neither))
    if one.difference is None:
        return *counts, f"not defined: {one.reason}", DASH, DASH
    return *counts, number(one.difference, signed=True), _interval(one.low, one.high), p_value(one.p)


def _delong(one: DeLong) -> str:
    if one.auc_a is None or one.auc_b is None or one.difference is None:
        return f"not defined: {one.reason}"
    text = f"{number(one.auc_a)} against {number(one.auc_b)}, difference {number(one.difference, signed=True)}"
    if one.low is None or one.p is None:
        return f"{text}; no interval: {one.reason}"
    p = p_value(one.p)
    sign, digits = ("<", p[1:]) if p.startswith("<") else ("=", p)
    text = f"{text} ({_interval(one.low, one.high)}), p {sign} {digits}"
    return f"{text} ({one.reason})" if one.reason else text


def _settings(comparison: Comparison) -> str:
    settings = comparison.settings
    if not settings["n_bootstrap"]:
        return "No resamples, so no bootstrap intervals."
    return (
        f"{settings['n_bootstrap']:,} resamples of the groups, seed {settings['seed']}; a box hits at IoU .5 or more."
    )


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return DASH
    return f"{number(low, signed=True)} to {number(high, signed=True)}"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


def _escaped(*cells: str) -> list[str]:
    return [escaped(cell) for cell in cells]
