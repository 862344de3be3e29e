"""How figures are formatted, and the summary that a report opens with."""

from dataclasses import replace

import pytest

from fracture_det.calibration.operating_points import RULES
from fracture_det.evaluation.report import Estimate, Stratum
from fracture_det.reporting.formatting import format_estimate, format_number, format_percent, reading
from fracture_det.reporting.summary import summary_text
from fracture_det.structures.wording import counted
from tests.reporting.reports import bare, gone, point, realistic, share

NUMBERS = [
    # value, signed, written
    (0.744, False, ".744"),
    (0.0004, False, ".000"),
    (0.9996, False, "1.000"),  # rounds up: the leading digit is no longer 0
    (1.0, False, "1.000"),
    (12.5, False, "12.500"),
    (-0.03, False, "-.030"),
    (0.03, True, "+.030"),
    (-0.0001, True, ".000"),  # no sign before a zero
    (0.0, True, ".000"),
]


@pytest.mark.parametrize(("value", "signed", "expected"), NUMBERS)
def test_numbers(value, signed, expected):
    assert format_number(value, signed=signed) == expected


PERCENTS = [
    (0.744, "74"),
    (0.0, "0"),
    (1.0, "100"),
    (0.004, "0.4"),  # not none
    (0.997, "99.7"),  # not all
    (0.006, "1"),
]


@pytest.mark.parametrize(("value", "expected"), PERCENTS)
def test_percents_never_round_to_none_or_all(value, expected):
    assert format_percent(value) == expected


WRITTEN = [
    # what is known, how it is written in one line
    (Estimate(0.5), ".500"),
    (Estimate(0.5, 0.25, 0.75), ".500 (.250 to .750)"),
    (Estimate(0.5, 0.25, 0.75, 0.3, 0.7, 50, 100), ".500 (.250 to .750), 50/100, W .300 to .700"),
    (Estimate(0.5, n=29), ".500 †, n = 29"),  # 29 < 30
    (Estimate(0.5, n=30), ".500, n = 30"),
    (Estimate(0.5, 0.25, 0.75, count=1, n=2, undefined=1200), ".500 (.250 to .750) †, 1/2, ‡1,200"),
    (Estimate(0.5, 0.25, None), ".500"),  # half an interval is none
    (Estimate(1.25, count=5000, n=4000), "1.250, 5,000/4,000"),
    (Estimate(None, n=0, reason="no annotated fracture"), "not defined: no annotated fracture"),
]


@pytest.mark.parametrize(("figure", "expected"), WRITTEN)
def test_figures(figure, expected):
    assert str(format_estimate(figure)) == expected


def test_counts_agree_with_their_noun():
    assert [counted(1, "box", "boxes"), counted(0, "box", "boxes"), counted(1234, "group")] == [
        "1 box",
        "0 boxes",
        "1,234 groups",
    ]


def test_reading_explains_every_sign():
    assert all(sign in reading(realistic()) for sign in ("W", "†", "‡", "95 %", "2,000"))


# --- summary --------------------------------------------------------------------------------------------------------


def test_the_paragraph_has_the_data_the_main_figures_and_their_uncertainty():
    # 75/95 = .789, interval .699 to .880; 200/249 = .803, interval .749 to .858;
    # 61/104 = .587, .482 to .691; 74 false positives on 344 images: .22;
    # by body part 9/43 = .21 and 7/35 = .20 are missed, elbow has only 17.
    assert summary_text(realistic()) == (
        "Faster R-CNN R50-FPN, half width was evaluated on 344 radiographs in 263 groups (patients, or copies of "
        "one image): 95 fractured (104 annotated fractures) and 249 healthy; a further 3 could not be predicted. "
        "At the main operating point (Youden's index, score\N{NO-BREAK SPACE}.431, chosen on val.json), image-level "
        "sensitivity was 79 % (75 of 95 fractured radiographs; 95 % CI 70 to 88 %) and specificity was 80 % (200 of "
        "249 healthy radiographs; 75 to 86 %). "
        "Its boxes localised 61 of 104 annotated fractures (59 %; 48 to 69 %), with 74 false-positive boxes (.22 per "
        "radiograph). "
        "Sensitivity was lowest for hand, where 9 of 43 fractured radiographs were missed (among body parts with at "
        "least 30). "
        "The image-level AUROC was .868 (.827 to .909): a fractured radiograph scored higher than a healthy one in 87 "
        "% of pairs. "
        "The confidence intervals cover the sampling of patients from the same population, but not other hospitals, "
        "equipment or readers."
    )


def test_of_one_healthy_radiograph_it_says_what_is_not_defined():
    assert summary_text(bare()) == (
        "The detector was evaluated on 1 radiograph: 0 fractured (0 annotated fractures) and 1 healthy. "
        f"At the main operating point ({RULES['paper']}, score\N{NO-BREAK SPACE}.500, fixed by the paper), image-level "
        "specificity was 100 % (1 of 1 healthy radiographs). "
        "Sensitivity is not defined: no fractured image. "
        "No confidence intervals were computed, so the uncertainty of these figures is unknown."
    )


def test_without_a_healthy_radiograph_specificity_is_not_defined():
    report = realistic()
    main = point("paper", 0.5, "fixed by the paper", (3, 1, 2), (3, 1, 0, 0), (3, 1, 0, 0))
    words = summary_text(replace(report, operating_points=[main], image={"AUROC": gone("no healthy image")}))
    assert "image-level sensitivity was 75 % (3 of 4 fractured radiographs; 95 % CI" in words
    assert "Specificity is not defined: no healthy image." in words
    assert "AUROC" not in words


BODY_PARTS = [
    # fractured and detected by body part, the sentence
    (
        {"hand": (40, 30), "leg": (40, 20)},
        "Sensitivity was lowest for leg, where 20 of 40 fractured radiographs were missed",
    ),
    ({"hand": (29, 0), "leg": (40, 20)}, None),  # only one body part has 30
    ({"hand": (40, 40), "leg": (50, 50)}, None),  # nothing was missed
    ({}, None),
]


@pytest.mark.parametrize(("body_parts", "sentence"), BODY_PARTS)
def test_the_weakest_body_part_is_named_only_among_those_with_a_sufficient_sample(body_parts, sentence):
    rows = [
        Stratum("anatomy", anatomy, n, n, n, {"sensitivity": share(detected, n, "no fractured image")})
        for anatomy, (n, detected) in body_parts.items()
    ]
    words = summary_text(replace(realistic(), strata=rows))
    assert ("Sensitivity was lowest" in words) == (sentence is not None)
    assert sentence is None or sentence in words


def test_every_image_as_a_separate_patient_is_said():
    report = realistic()
    words = summary_text(replace(report, counts={**report.counts, "groups": 344}))
    assert "evaluated on 344 radiographs, each treated as a separate patient: 95" in words
