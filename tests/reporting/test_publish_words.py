"""How figures are written, and the paragraph in plain words that a report opens with."""

from dataclasses import replace

import pytest

from fracture_det.evaluation.report import Estimate, Stratum
from fracture_det.reporting.formatting import counted, number, percent, reading, written
from fracture_det.reporting.summary import plain_words
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
    assert number(value, signed=signed) == expected


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
    assert percent(value) == expected


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
    (Estimate(None, n=0, reason="no truth box"), "not defined: no truth box"),
]


@pytest.mark.parametrize(("figure", "expected"), WRITTEN)
def test_figures(figure, expected):
    assert str(written(figure)) == expected


def test_counts_agree_with_their_noun():
    assert [counted(1, "box", "boxes"), counted(0, "box", "boxes"), counted(1234, "group")] == [
        "1 box",
        "0 boxes",
        "1,234 groups",
    ]


def test_reading_explains_every_sign():
    assert all(sign in reading(realistic()) for sign in ("W", "†", "‡", "95 %", "2,000"))


# --- in plain words --------------------------------------------------------------------------------------------------


def test_the_paragraph_says_what_was_tested_found_and_missed_and_how_sure_that_is():
    # 75/95 = .789, interval .699 to .880; 49/249 false alarms = .197, specificity .749 to .858, so .142 to .251;
    # 61/104 = .587, .482 to .691; 74 false of 61 + 74 = 135 boxes; 74/344 = .22;
    # by anatomy 9/43 = .21 and 7/35 = .20 are missed, elbow has only 17.
    assert plain_words(realistic()) == (
        "Faster R-CNN R50-FPN, half width was tested on 344 radiographs in 263 groups (patients, or copies of "
        "one image): 95 fractured (104 marked fractures), 249 healthy; 3 more could not be predicted. "
        "At its main operating point (Youden's index, score\N{NO-BREAK SPACE}.431, chosen on val.json), of 95 "
        "fractured radiographs it called 75 (79 %, 95 % interval 70 to 88 %) and missed 20; of 249 healthy radiographs "
        "it wrongly called 49 (20 %, 14 to 25 %). "
        "It missed the largest share on hand: 9 of 43 (body parts with at least 30 fractured radiographs). "
        "Its boxes lay on 61 of 104 marked fractures (59 %, 48 to 69 %), and 74 of 135 boxes lay on none (.22 per "
        "radiograph). "
        "By score alone, a fractured radiograph ranks above a healthy one in 87 % of pairs (AUROC .868, .827 to .909). "
        "The intervals say how far these figures would move with other patients of the same kind, and nothing of other "
        "hospitals, machines or readers."
    )


def test_of_one_healthy_radiograph_it_says_what_cannot_be_said():
    assert plain_words(bare()) == (
        "The detector was tested on 1 radiograph: 0 fractured (0 marked fractures), 1 healthy. "
        "At its main operating point (The paper's, score\N{NO-BREAK SPACE}.500, fixed by the paper), of 1 healthy "
        "radiograph it wrongly called 0 (0 %). "
        "How many fractures it finds cannot be said: no fractured image. "
        "No intervals were computed, so nothing here says how far these figures would move with other patients."
    )


def test_without_a_healthy_radiograph_false_alarms_cannot_be_said():
    report = realistic()
    main = point("paper", 0.5, "fixed by the paper", (3, 1, 2), (3, 1, 0, 0), (3, 1, 0, 0))
    words = plain_words(replace(report, operating_points=[main], image={"AUROC": gone("no healthy image")}))
    assert "of 4 fractured radiographs it called 3 (75 %" in words
    assert "How often it calls a false alarm cannot be said: no healthy image." in words
    assert "By score alone" not in words


SITES = [
    # fractured and called by anatomy, the sentence
    ({"hand": (40, 30), "leg": (40, 20)}, "It missed the largest share on leg: 20 of 40"),
    ({"hand": (29, 0), "leg": (40, 20)}, None),  # only one anatomy has 30
    ({"hand": (40, 40), "leg": (50, 50)}, None),  # nothing was missed
    ({}, None),
]


@pytest.mark.parametrize(("anatomies", "sentence"), SITES)
def test_the_weakest_site_is_named_only_among_sites_that_rest_on_enough(anatomies, sentence):
    rows = [
        Stratum("anatomy", anatomy, n, n, n, {"sensitivity": share(called, n, "no fractured image")})
        for anatomy, (n, called) in anatomies.items()
    ]
    words = plain_words(replace(realistic(), strata=rows))
    assert ("largest share" in words) == (sentence is not None)
    assert sentence is None or sentence in words


def test_every_image_a_patient_of_its_own_is_said():
    report = realistic()
    words = plain_words(replace(report, counts={**report.counts, "groups": 344}))
    assert "tested on 344 radiographs, each taken as a patient of its own: 95" in words
