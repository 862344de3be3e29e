"""CLAIM, TRIPOD+AI and the model card: the published items, and no answer that the report does not have."""

import re
from dataclasses import replace

import pytest

from fracture_det.reporting.checklists import CLAIM, NOT_REPORTED, TRIPOD, claim, tripod
from fracture_det.reporting.model_card import model_card
from tests.reporting.pages import from_markdown
from tests.reporting.reports import bare, realistic

# Collins et al. 2024, table 2: 27 items, 52 with their parts; D: development only, E: evaluation only, else both.
# 17 items without parts and 3 + 2 + 3 + 3 + 3 + 7 + 6 + 3 + 2 + 3 = 35 parts make 52.
PARTS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
TRIPOD_NUMBERS = [f"{number}{part}" for number in range(1, 28) for part in PARTS.get(number, [""])]
ONLY_DEVELOPMENT = {"9a", "12a", "12b", "12c", "15", "22", "27a", "27b"}
ONLY_EVALUATION = {"12f", "12g", "20c", "24"}


def answers(text):
    """Item number -> what the skeleton says."""
    page = from_markdown(text)
    assert all(table.header[0] == "Item" and table.header[-1] == "In the manuscript" for table in page.tables)
    return {row[0]: row[-2] for table in page.tables for row in table.rows}


def test_claim_has_its_44_items_in_order():
    numbers = [item.number for items in CLAIM.values() for item in items]
    assert numbers == [str(number) for number in range(1, 45)]
    assert list(answers(claim(realistic()))) == numbers


def test_tripod_has_its_27_items_with_52_parts_in_order():
    items = [item for items in TRIPOD.values() for item in items]
    assert [item.number for item in items] == TRIPOD_NUMBERS
    assert len({re.sub("[a-z]", "", number) for number in TRIPOD_NUMBERS}) == 27
    assert len(TRIPOD_NUMBERS) == 52
    assert {item.number for item in items if item.scope == "D"} == ONLY_DEVELOPMENT
    assert {item.number for item in items if item.scope == "E"} == ONLY_EVALUATION
    assert list(answers(tripod(realistic()))) == TRIPOD_NUMBERS


def test_titles_are_our_own_and_the_source_is_named():
    for text, doi in ((claim(bare()), "10.1148/ryai.240300"), (tripod(bare()), "10.1136/bmj-2023-078378")):
        assert doi in text
        assert "consult the published wording to complete the checklist" in text


def test_what_only_authors_know_is_never_answered():
    authors = [str(number) for number in (*range(3, 7), 8, 9, 10, 11, *range(13, 19), 20, 21, *range(24, 28))]
    authors += ["31", "32", "33", "34", "41", "42", "43", "44"]
    said = answers(claim(realistic()))
    assert {said[number] for number in authors} == {NOT_REPORTED}
    authors = (
        "1 3a 3b 3c 4 5b 6a 6b 6c 7 8b 8c 9a 9b 9c 10 12b 12c 13 14 16 17 18a 18b 18c 18d 18e 18f 19 20c 25 27a 27b 27c"
    )
    said = answers(tripod(realistic()))
    assert {said[number] for number in authors.split()} == {NOT_REPORTED}


CLAIM_SAYS = [
    # item, what it must name
    ("7", ["test.json", "9f2c" * 16, "in part"]),
    ("12", ["3 of 347", "1 of them fractured", "in part"]),
    ("19", ["split.json", "chosen on val.json", "in part"]),
    ("22", ["Faster R-CNN R50-FPN, half width", "c0de" * 16, "in part"]),
    ("23", ["numpy 2.4.6", "python 3.11.9", "yes"]),
    ("29", ["95 %", "2,000 resamples of 263 groups", "seed 0", "yes"]),
    ("30", ["jpeg", "crop", "yes"]),
    ("35", ["347 images in the data set", "344 evaluated", "95 fractured", "263 groups", "in part"]),
    ("37", ["AP50 .157 (.107 to .207)", "AUROC .868 (.827 to .909)", "yes"]),
    ("38", ["sensitivity .789 (.699 to .880), 75/95", "specificity .803", "yes"]),
    ("39", ["localisation 31", "15 examples", "yes"]),
]


@pytest.mark.parametrize(("item", "words"), CLAIM_SAYS)
def test_an_answer_has_the_value(item, words):
    said = answers(claim(realistic()))[item]
    assert [word for word in words if word not in said] == []


TRIPOD_SAYS = [
    ("12f", ["Platt scaling", "fitted on val.json"]),
    ("12g", ["highest box score", "5038bf316f51005ba9583db4ea34c8daa4084fbb"]),
    ("15", [".431", "chosen on val.json", "fixed by the paper"]),
    ("21", ["344 images", "95 fractured"]),
    ("23b", ["elbow .860", "shoulder not defined: no fractured image"]),
    ("24", ["Images, raw scores: ECE .110", "Boxes, calibrated (Platt scaling): ECE .020"]),
]


@pytest.mark.parametrize(("item", "words"), TRIPOD_SAYS)
def test_an_answer_to_tripod_has_the_value(item, words):
    said = answers(tripod(realistic()))[item]
    assert [word for word in words if word not in said] == []


WITHOUT = [
    # what the report lacks, the items of CLAIM and of TRIPOD+AI that it then does not answer
    ({"about": {}}, ["7", "22", "23"], ["5a", "12g", "22"]),
    ({"robustness": []}, ["30"], []),
    ({"calibration": []}, [], ["12f", "24"]),
    ({"calibration": realistic().calibration[:2]}, [], ["12f", "24"]),  # raw scores only
    ({"strata": []}, ["36"], ["20b", "23b"]),
    ({"notes": []}, ["40"], ["26"]),
    ({"errors": replace(realistic().errors, types={})}, ["39"], []),
    ({"settings": {**realistic().settings, "n_bootstrap": 0}}, ["29"], ["12d"]),
    (
        {"about": {"detector": "x", "data": "y", "numpy": "2"}, "operating_points": realistic().operating_points[-1:]},
        ["19"],
        ["12a"],
    ),  # no split, and the paper's threshold only
]


@pytest.mark.parametrize(("changes", "of_claim", "of_tripod"), WITHOUT, ids=lambda value: str(value)[:30])
def test_what_the_report_lacks_is_not_answered(changes, of_claim, of_tripod):
    report = replace(realistic(), **changes)
    for text, full, items in (
        (claim(report), claim(realistic()), of_claim),
        (tripod(report), tripod(realistic()), of_tripod),
    ):
        lacking = {number for number, said in answers(text).items() if said == NOT_REPORTED}
        before = {number for number, said in answers(full).items() if said == NOT_REPORTED}
        assert lacking - before == set(items)


def test_the_head_counts_what_is_answered():
    for text in (claim(realistic()), tripod(bare())):
        said = list(answers(text).values())
        numbers = [int(number) for number in re.findall(r"\d+", re.search(r"Of \d+ items.*", text)[0])]
        yes, part = (sum(one.startswith(word) for one in said) for word in ("yes", "in part"))
        assert numbers == [len(said), yes, part, said.count(NOT_REPORTED)]
        assert yes + part + said.count(NOT_REPORTED) == len(said)


# --- model card ------------------------------------------------------------------------------------------------------


def test_the_model_card_has_the_sections_of_mitchell_2019():
    for report in (realistic(), bare()):
        card = model_card(report)
        assert re.findall("^## (.+)$", card, flags=re.MULTILINE) == [
            "Model details",
            "Intended use",
            "Factors",
            "Metrics",
            "Evaluation data",
            "Training data",
            "Quantitative analyses",
            "Ethical considerations",
            "Caveats and recommendations",
        ]
        assert "Research use only; not a medical device." in card


def test_training_data_stay_open_unless_the_report_names_them():
    assert "Not in this report; see the model card of the training." in model_card(realistic())
    report = replace(realistic(), about={**realistic().about, "training data": "train.json"})
    card = from_markdown(model_card(report))
    assert "Not in this report; see the model card of the training." not in card.text
    assert ["training data", "train.json"] in [row for table in card.tables for row in table.rows]


def test_the_model_card_has_figures_and_what_is_not_known():
    card = from_markdown(model_card(realistic()))
    figures = {row[0]: row[1] for table in card.tables if table.header[:1] != ["Images"] for row in table.rows}
    assert figures["AUROC, images"] == ".868 (.827 to .909), n = 95"
    assert figures["weights SHA-256"] == "c0de" * 16
    anatomies = next(table for table in card.tables if table.header[:1] == ["Images"]).by_name
    assert anatomies["shoulder"]["AP50"] == "not defined: no annotated fracture"
    assert "a score of .8 is not a probability of 80 %" in model_card(bare())
    assert "a score of .8 is not a probability of 80 %" not in model_card(realistic())
    assert "Robustness to poor image quality was not measured." in model_card(bare())
