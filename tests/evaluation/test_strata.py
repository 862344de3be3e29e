"""Table II for every column: which rows there are, and that each is the evaluation of its own images alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fracture_det.evaluation.image_level import auroc
from fracture_det.evaluation.lesion_level import average_precision
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.strata import by_box_size, left_out, strata
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import dataset, found, random_study, record
from tests.evaluation.test_coco_eval import pycocotools_judge


def with_attributes(one, **attributes):
    return replace(one, attributes=attributes)


RECORDS = [
    with_attributes(record(0, [1, 2], anatomy="hand"), view="ap", hardware="0", truth="1", number="a"),
    with_attributes(record(1, [1], anatomy="leg"), view="lateral", hardware="0", truth="1", number="b"),
    with_attributes(record(2, anatomy="hand"), view="ap", hardware="0", truth="0", number="c"),
    with_attributes(replace(record(3), width=1500), view="lateral", hardware="0", truth="0", number="d"),
]
# hand: box 1 hit at .9, box 2 missed, one false box of .6 on the healthy image; leg: hit at .4; unknown: nothing
PREDICTIONS = {0: found((1, 0.9)), 1: found((1, 0.4)), 2: found((5, 0.6)), 3: found()}


def rows(score=0.5, **options):
    matches = match_dataset(dataset(*RECORDS), PREDICTIONS)
    options = {"n_bootstrap": 50, "seed": 0, **options}
    return strata(RECORDS, matches, options.pop("sized", {}), score, **options), matches


def test_every_column_has_its_rows_all_first_then_anatomy():
    table, _ = rows()
    assert [(row.column, row.value) for row in table] == [
        ("all", "all"),
        ("anatomy", "hand"), ("anatomy", "leg"), ("anatomy", "unknown"),
        ("image size", "up to 512 px"), ("image size", "1025 to 2048 px"),
        ("view", "ap"), ("view", "lateral"),
    ]  # fmt: skip
    assert [(row.n_images, row.n_fractured, row.n_boxes) for row in table[:4]] == [
        (4, 2, 3), (2, 1, 2), (1, 1, 1), (1, 0, 0),
    ]  # fmt: skip


def test_columns_that_make_no_table_are_named_with_their_reason():
    many = [with_attributes(record(i), number=str(i)) for i in range(13)]
    assert left_out(RECORDS) == {
        "hardware": "every image has the value '0'",
        "number": "every image has its own value",
        "truth": "it repeats whether the image is fractured",
    }
    assert left_out(many) == {"number": "it has 13 different values, more than 12"}
    assert left_out([]) == {}


CELLS = [
    # value, figure, value of the cell, count, n
    ("hand", "precision", 1 / 2, 1, 2),  # .9 hits, .6 does not
    ("hand", "recall", 1 / 2, 1, 2),  # box 2 is missed
    ("hand", "sensitivity", 1.0, 1, 1),
    ("hand", "specificity", 0.0, 0, 1),  # the healthy hand is called
    ("hand", "AUROC", 1.0, None, 1),  # .9 above .6
    ("hand", "AP50", 51 / 101, None, 2),  # precision 1 up to recall .5: 51 of the 101 points 0, .01 ... 1
    ("leg", "recall", 0.0, 0, 1),  # .4 is under .5
    ("leg", "AP50", 1.0, None, 1),
    ("leg", "precision", None, None, 0),
    ("leg", "specificity", None, None, 0),
    ("unknown", "sensitivity", None, None, 0),
    ("unknown", "specificity", 1.0, 1, 1),
    ("unknown", "AP50", None, None, 0),
]


@pytest.mark.parametrize(("value", "figure", "expected", "count", "n"), CELLS, ids=[f"{c[0]} {c[1]}" for c in CELLS])
def test_a_cell_is_the_figure_of_its_images(value, figure, expected, count, n):
    cell = next(row for row in rows()[0] if row.value == value).figures[figure]
    assert (cell.count, cell.n) == (count, n)
    assert cell.small
    if expected is None:
        assert cell.value is None
        assert cell.reason
    else:
        assert cell.value == pytest.approx(expected)


def test_the_row_of_all_images_is_the_evaluation_of_all_images():
    table, matches = rows()
    assert table[0].figures["AP50"].value == pytest.approx(average_precision(matches), abs=1e-9)
    assert table[0].figures["AUROC"].value == pytest.approx(auroc(matches.top_score, matches.fractured), abs=1e-9)


def test_box_size_rows_count_boxes_and_no_images_and_follow_the_anatomies():
    table, _ = rows(sized=by_box_size(dataset(*RECORDS), PREDICTIONS))
    sizes = table[4:7]
    assert [(row.column, row.n_boxes) for row in sizes] == [("box size", 3), ("box size", 0), ("box size", 0)]
    assert list(sizes[0].figures) == ["AP50", "precision", "recall"]
    assert sizes[1].figures["recall"].reason == "no annotated fracture"


def test_a_box_counts_where_the_fracture_that_it_hits_belongs():
    # truth: small 30 x 30 and large 100 x 100; both hit, by a box of the other size's area at the border;
    # a false small box and a false large box
    small, large = [0.0, 0.0, 30.0, 30.0], [200.0, 0.0, 300.0, 100.0]
    one = replace(record(0), boxes=np.array([small, large]), classes=np.zeros(2, np.int64))
    boxes = [[0, 0, 34, 34], [200, 0, 290, 95], [100, 50, 110, 60], [0, 100, 120, 220]]
    found_boxes = Detections.from_unsorted(boxes, [0.9, 0.8, 0.7, 0.6], [0] * 4)
    sized = by_box_size(dataset(one), {0: found_boxes})
    # name: (truth, hit flags in order of score)
    expected = {"small": (1, [True, False]), "medium": (0, []), "large": (1, [True, False])}
    for name, (n_truth, hits) in expected.items():
        part = next(value for key, value in sized.items() if key.startswith(name))
        assert (part.n_truth, part.hit.tolist()) == (n_truth, hits), name


@pytest.mark.parametrize("seed", range(5))
def test_ap50_by_size_is_cocos(seed):
    study, predictions = random_study(seed, n_classes=1)
    judge = pycocotools_judge(study, predictions)
    for index, part in enumerate(by_box_size(study, predictions).values(), 1):
        precision = judge.eval["precision"][0, :, 0, index, -1]
        assert average_precision(part) == pytest.approx(precision.mean(), abs=1e-6)


def test_no_images_at_all_is_one_row_of_reasons():
    matches = match_dataset(dataset(), {})
    (row,) = strata([], matches, {}, 0.5, n_bootstrap=10, seed=0)
    assert row.n_images == 0
    assert all(cell.value is None and cell.reason for cell in row.figures.values())
