"""Types of fracture: is the most probable type of an image the true one, and how far can its probability be trusted?

Every image whose true type is known is asked. Its answer is the most probable type of `Detections.image_types`; an
image without a box has no answer, which is reported by itself and is never counted as right.
Functions take `weights` (K,): how often each image counts in a bootstrap resample. NaN means "not defined".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fracture_det.calibration.type_threshold import TypeThreshold, choose_type_threshold
from fracture_det.data.records import TYPE_ATTRIBUTE, ImageRecord
from fracture_det.evaluation.bootstrap import BootstrapResult, bootstrap_intervals
from fracture_det.evaluation.estimates import Basis, curve, estimate
from fracture_det.evaluation.lesion_level import Floats, ratio
from fracture_det.evaluation.reliability import Forecasts, reliability_of
from fracture_det.evaluation.report import ANSWER, RAW, AboveChance, ConfidenceRow, Estimate, TypeRow, Types
from fracture_det.structures.detections import Detections
from fracture_det.structures.fracture_types import fracture_types

ANSWERED, FRACTURED = "answered", "fractured"
DETECTOR, CHANCE, DIFFERENCE = "detector", "chance", "difference"
# The confidences of the table of answers above one; 0 is every answer.
CONFIDENCES = (0.0, 0.3, 0.5, 0.7, 0.9)
NO_ANSWER, NO_IMAGE = "no image has an answer", "no image of known type"


class TypeNameError(ValueError):
    """A detector tells a type that configs/fracture_types.yaml does not list; the message names it."""


def known_names(type_names: Sequence[str]) -> tuple[str, ...]:
    """Return a detector's types as the house names them.

    Raises TypeNameError for a name that is not listed, and for two names of one type.
    """
    kinds = [fracture_types().find(name) for name in type_names]
    unknown = [name for name, kind in zip(type_names, kinds, strict=True) if kind is None]
    if unknown:
        listed = ", ".join(fracture_types().names)
        raise TypeNameError(f"type_names: {unknown[0]!r} is not in configs/fracture_types.yaml, which lists {listed}")
    names = tuple(kind.name for kind in kinds if kind is not None)
    if len(set(names)) < len(names):
        raise TypeNameError(f"type_names: expected each type once, got {', '.join(type_names)}")
    return names


def true_types(record: ImageRecord) -> set[str]:
    """Return the known types of a fractured image: those of its boxes, or, where no box has one, that of the image."""
    if not record.fractured:
        return set()
    return {kind for kind in record.types if kind is not None} or {kind for kind in [record.image_type] if kind}


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TypeAnswers:
    """What is said of the K images of one known type, in order of image id, among T types.

    names: those that the detector tells, then others that the images have. truth: (K,) index into names.
    probability: (K, T), zeros without an answer. answered: (K,) bool. image: (K,) index among all I images.
    group: (K,) group index from 0.
    """

    names: tuple[str, ...]
    truth: NDArray[np.int64]
    probability: Floats
    answered: NDArray[np.bool_]
    image: NDArray[np.int64]
    group: NDArray[np.int64]

    @cached_property
    def ranked(self) -> NDArray[np.int64]:
        """(K, T) types from the most probable one on; of equal ones the first listed."""
        return np.argsort(-self.probability, axis=1, kind="stable")

    @cached_property
    def answer(self) -> NDArray[np.int64]:
        """(K,) the most probable type; T without an answer."""
        return np.where(self.answered, self.ranked[:, 0], len(self.names))

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(K,) whether the answer is the true type."""
        return np.asarray(self.answer == self.truth)

    @cached_property
    def among_two(self) -> NDArray[np.bool_]:
        """(K,) whether the true type is one of the two most probable ones."""
        return np.asarray((self.ranked[:, :2] == self.truth[:, None]).any(axis=1) & self.answered)

    @cached_property
    def confidence(self) -> Floats:
        """(K,) the probability of the answer; 0 without one."""
        return np.asarray(self.probability.max(axis=1, initial=0.0).round(6))  # undoes float32: .7 is not below .7

    @cached_property
    def squared_error(self) -> Floats:
        """(K,) the sum over the types of (p - truth)^2."""
        return np.asarray(((self.probability - np.eye(len(self.names))[self.truth]) ** 2).sum(axis=1))

    @cached_property
    def frequent(self) -> NDArray[np.int64]:
        """(T,) types from the most frequent true one on; of equal ones the first listed."""
        return np.argsort(-np.bincount(self.truth, minlength=len(self.names)), kind="stable")

    def confusion(self, weights: Floats | None = None) -> Floats:
        """Return how many images of each true type have each answer (T, T + 1), the last column without one."""
        n = len(self.names)
        counts = np.bincount(self.truth * (n + 1) + self.answer, weights, minlength=n * (n + 1))
        return counts.reshape(n, n + 1).astype(np.float64)


def answers_of(
    records: Sequence[ImageRecord], detections: Mapping[int, Detections], type_names: Sequence[str]
) -> TypeAnswers:
    """Return the answers on the images that have one known type. records: in order of image id, as `shared_records`.

    Raises TypeNameError as `known_names`.
    """
    known = [(index, record) for index, record in enumerate(records) if len(true_types(record)) == 1]
    truth = [next(iter(true_types(record))) for _, record in known]
    told = known_names(type_names)
    names = told + tuple(name for name in fracture_types().names if name in set(truth) - set(told))
    said = [detections[record.image_id].image_types() for _, record in known]
    probability = np.zeros((len(known), len(names)))
    for row, types in zip(probability, said, strict=True):
        row[: len(told)] = 0 if types is None else types
    return TypeAnswers(
        names,
        np.array([names.index(name) for name in truth], dtype=np.int64),
        probability,
        np.array([types is not None for types in said], dtype=bool),
        np.array([index for index, _ in known], dtype=np.int64),
        np.unique([record.group_id for _, record in known], return_inverse=True)[1].astype(np.int64),
    )


def type_threshold(answers: TypeAnswers, *, rule: str, target: float) -> TypeThreshold:
    """Return the confidence that validation images give; see `choose_type_threshold`."""
    answered = answers.answered
    confidence, right = answers.confidence[answered], answers.right[answered]
    return choose_type_threshold(confidence, right, len(answered), rule=rule, target=target)


# --- statistics ------------------------------------------------------------------------------------------------------


class TypeStatistic(NamedTuple):
    """Names one resampled statistic. of: ANSWERED, FRACTURED, a type, or a confidence. by: the detector or chance."""

    name: str
    of: str | float | tuple[int, int]
    by: str = DETECTOR


Values = dict[TypeStatistic, float]


def macro_f1(counts: Floats) -> float:
    """Return the mean F1 over the types that the truth has. counts: (T, T) or, with no answer last, (T, T + 1).

    F1 of a type: 2 TP / (images of it + answers of it), as `f1_score(average="macro")` of scikit-learn for the labels
    of the truth. NaN without an image.
    """
    n, true = counts.sum(axis=1), counts.diagonal()
    present = n > 0
    if not present.any():
        return float("nan")
    return float((2 * true[present] / (n + counts.sum(axis=0)[: len(n)])[present]).mean())


def _population(answers: TypeAnswers, of: str, counts: Floats, weights: Floats) -> Values:
    """Return the figures of the images with an answer, or of all, of the detector and of chance, and the differences.

    Chance always gives the types from the most frequent on: it is right in the share of that type, and its Brier score
    is that of always giving the shares of the types, 1 - sum of their squares.
    """
    counts = counts[:, :-1] if of == ANSWERED else counts
    members = weights * answers.answered if of == ANSWERED else weights
    n, by_type = float(counts.sum()), counts.sum(axis=1)
    always = np.zeros((len(by_type), len(by_type)))
    if len(by_type):
        always[:, answers.frequent[0]] = by_type
    pairs = {
        "accuracy": (ratio(counts.diagonal().sum(), n), ratio(always.diagonal().sum(), n)),
        "macro_f1": (macro_f1(counts), macro_f1(always)),
        "top2": (ratio(float(members @ answers.among_two), n), ratio(by_type[answers.frequent[:2]].sum(), n)),
    }
    if of == ANSWERED:
        base = 1 - ratio(float((by_type**2).sum()), n**2)
        pairs["brier"] = (ratio(float(members @ answers.squared_error), n), base)
    values: Values = {}
    for name, (detector, chance) in pairs.items():
        values[TypeStatistic(name, of)] = detector
        values[TypeStatistic(name, of, CHANCE)] = chance
        values[TypeStatistic(name, of, DIFFERENCE)] = detector - chance
    return values


def population_statistics(answers: TypeAnswers, weights: Floats) -> Values:
    """Return the figures of both populations for image weights (K,)."""
    counts = answers.confusion(weights)
    return _population(answers, ANSWERED, counts, weights) | _population(answers, FRACTURED, counts, weights)


def _statistics(answers: TypeAnswers, confidences: Sequence[float], weights: Floats) -> Values:
    values, counts = population_statistics(answers, weights), answers.confusion(weights)
    given, true = counts[:, :-1].sum(axis=0), counts.diagonal()
    asked = counts[:, :-1].sum(axis=1)
    for index, name in enumerate(answers.names):
        values[TypeStatistic("precision", name)] = ratio(true[index], given[index])
        values[TypeStatistic("recall", name)] = ratio(true[index], asked[index])
        values[TypeStatistic("f1", name)] = ratio(2 * true[index], given[index] + asked[index])
    n = float(weights.sum())
    for confidence in confidences:
        sure = weights * (answers.answered & (answers.confidence >= confidence))
        values[TypeStatistic("coverage", confidence)] = ratio(float(sure.sum()), n)
        values[TypeStatistic("accuracy", confidence)] = ratio(float(sure @ answers.right), float(sure.sum()))
    shares = counts / np.where(counts.sum(axis=1) > 0, counts.sum(axis=1), np.nan)[:, None]
    for place, share in np.ndenumerate(shares):
        values[TypeStatistic("share", (place[0], place[1]))] = float(share)
    return values


# --- results ---------------------------------------------------------------------------------------------------------


def evaluate_types(
    answers: TypeAnswers, threshold: TypeThreshold | None, *, n_bootstrap: int, seed: int, chosen_on: str = ""
) -> Types:
    """Return every figure of the answers, with its interval over resampled groups that have an image of known type.

    threshold: of `type_threshold` on validation data, which `chosen_on` names.
    """
    frozen = None if threshold is None else threshold.confidence
    confidences = list(dict.fromkeys([*CONFIDENCES, *([] if frozen is None else [frozen])]))
    results = bootstrap_intervals(
        lambda weights: _statistics(answers, confidences, weights), answers.group, n_bootstrap=n_bootstrap, seed=seed
    )
    answered = np.flatnonzero(answers.answered)
    forecasts = Forecasts(ANSWER, RAW, answers.confidence[answered], answers.right[answered], answered)
    no_truth = np.zeros(len(answers.truth), np.int64)
    origins = dict.fromkeys(CONFIDENCES, "")
    if threshold is not None and frozen is not None:
        origins[frozen] = f"{threshold.rule} {threshold.target:g} on {chosen_on or 'validation data'}"
    return Types(
        list(answers.names),
        _confusion(answers, results),
        _compared(answers, ANSWERED, results),
        _compared(answers, FRACTURED, results),
        list(_rows(answers, results)),
        reliability_of(forecasts, answers.group, no_truth, n_bootstrap=n_bootstrap, seed=seed),
        [_above(answers, confidence, origin, results) for confidence, origin in origins.items()],
        risk_coverage(answers),
        None if threshold is None else threshold.reason,
    )


Results = Mapping[TypeStatistic, BootstrapResult]


def _confusion(answers: TypeAnswers, results: Results) -> list[list[Estimate]]:
    counts = answers.confusion()
    return [
        [
            estimate(results[TypeStatistic("share", (row, column))], Basis(n, f"no image is {name}", count))
            for column, count in enumerate(by_answer)
        ]
        for row, (name, by_answer, n) in enumerate(zip(answers.names, counts, counts.sum(axis=1), strict=True))
    ]


def _compared(answers: TypeAnswers, of: str, results: Results) -> dict[str, AboveChance]:
    members = answers.answered if of == ANSWERED else np.ones_like(answers.answered)
    n, reason = int(members.sum()), NO_ANSWER if of == ANSWERED else NO_IMAGE
    by_type = np.bincount(answers.truth[members], minlength=len(answers.names))[answers.frequent]
    counts = {
        "accuracy": (int(answers.right.sum()), int(by_type[:1].sum())),
        "top2": (int(answers.among_two.sum()), int(by_type[:2].sum())),
    }
    compared = {}
    for name in dict.fromkeys(key.name for key in results if key.of == of):
        detector, chance = counts.get(name, (None, None))
        compared[name] = AboveChance(
            estimate(results[TypeStatistic(name, of)], Basis(n, reason, detector)),
            estimate(results[TypeStatistic(name, of, CHANCE)], Basis(n, reason, chance)),
            estimate(results[TypeStatistic(name, of, DIFFERENCE)], Basis(n, reason)),
        )
    return compared


def _rows(answers: TypeAnswers, results: Results) -> Iterator[TypeRow]:
    counts = answers.confusion()
    given, asked, images = counts[:, :-1].sum(axis=0), counts[:, :-1].sum(axis=1), counts.sum(axis=1)
    for index, name in enumerate(answers.names):
        true = counts[index, index]
        bases = {
            "precision": Basis(given[index], f"no answer is {name}", true),
            "recall": Basis(asked[index], f"no image with an answer is {name}", true),
            "f1": Basis(given[index] + asked[index], f"no image, and no answer, is {name}"),
        }
        figures = {key: estimate(results[TypeStatistic(key, name)], basis) for key, basis in bases.items()}
        yield TypeRow(name, round(images[index]), figures)


def _above(answers: TypeAnswers, confidence: float, origin: str, results: Results) -> ConfidenceRow:
    sure = answers.answered & (answers.confidence >= confidence)
    n = int(sure.sum())
    return ConfidenceRow(
        confidence,
        origin,
        estimate(results[TypeStatistic("coverage", confidence)], Basis(len(sure), NO_IMAGE, n)),
        estimate(
            results[TypeStatistic("accuracy", confidence)],
            Basis(n, "no answer has this confidence", int((sure & answers.right).sum())),
        ),
    )


def risk_coverage(answers: TypeAnswers) -> dict[str, list[float]]:
    """Return coverage and accuracy of the answers above each confidence, from strict to lenient.

    The risk of El-Yaniv and Wiener (2010) is 1 - accuracy. Answers of equal confidence count together.
    """
    answered = answers.answered
    levels, member = np.unique(-answers.confidence[answered], return_inverse=True)
    number = np.cumsum(np.bincount(member, minlength=len(levels)))
    right = np.cumsum(np.bincount(member, answers.right[answered], minlength=len(levels)))
    coverage = number / max(len(answered), 1)
    return curve(confidence=-levels, coverage=coverage, accuracy=right / np.maximum(number, 1))


def type_notes(records: Sequence[ImageRecord], answers: TypeAnswers, told: Sequence[str]) -> Iterator[str]:
    """Yield sentences about the images that are not asked, and the types that the detector cannot tell."""
    n_types = [len(true_types(record)) for record in records if record.fractured]
    if several := sum(n > 1 for n in n_types):
        yield f"Types: {several} images show fractures of several types and are in no image-level figure of types."
    if unknown := sum(n == 0 for n in n_types):
        yield f"Types: the type of {unknown} of {len(n_types)} fractured images is not known."
    texts = (record.attributes.get(TYPE_ATTRIBUTE, "") for record in records if record.fractured)
    unlisted = Counter(text for text in texts if text and fracture_types().find(text) is None)
    if unlisted:
        named = ", ".join(f"{text!r} ({count})" for text, count in unlisted.most_common())
        yield f"Types: not in configs/fracture_types.yaml, and taken as not known: {named}."
    if cannot := [name for name in answers.names if name not in told]:
        yield f"Types: the detector cannot tell {', '.join(cannot)}; on images of these it is never right."
