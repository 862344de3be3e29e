"""COCO's figures from matches that are only counted, against their judges, pycocotools and faster-coco-eval."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fracture_det.data.coco import to_coco
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation import coco_eval
from fracture_det.evaluation.coco_eval import STATS, coco_matches
from fracture_det.evaluation.lesion_level import average_precision
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.strata import by_box_size
from fracture_det.evaluation.tide import tide
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import (
    crowded_study,
    dataset,
    found,
    random_study,
    record,
    repeated,
    result_rows,
    truth_as_detections,
)


def pycocotools_judge(study, predictions):
    """Return COCOeval after it has said everything."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco(study)
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(result_rows(predictions)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def assert_equal_figures(figures, stats):
    """Compare with the twelve figures of a judge, who says -1 where there is no such truth."""
    expected = np.where(np.asarray(stats) < 0, np.nan, stats)
    np.testing.assert_allclose(list(figures.values()), expected, rtol=0, atol=1e-12)


def one_image(truth, boxes, scores, size=500):
    """Return one image with boxes x0 y0 x1 y1 of one class."""
    one = ImageRecord(1, "a.png", size, size, "a", None, np.array(truth, float), np.zeros(len(truth), np.int64))
    return dataset(one), {1: Detections.from_unsorted(boxes, scores, [0] * len(boxes))}


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_twelve_figures_are_those_of_pycocotools(seed, ties, n_classes):
    study, predictions = random_study(seed, ties=ties, n_classes=n_classes)
    figures = coco_matches(study, predictions).figures()
    assert tuple(figures) == STATS
    assert_equal_figures(figures, pycocotools_judge(study, predictions).stats)
    assert 0.2 < figures["AP50"] < 0.95  # the study is neither empty nor solved
    assert not any(np.isnan(value) for value in figures.values())  # all sizes are there


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_weighted_figures_are_those_of_pycocotools_on_repeated_images(seed, ties, n_classes):
    study, predictions = random_study(seed, ties=ties, n_classes=n_classes)
    weights = np.random.default_rng(seed).integers(0, 5, len(study)).astype(float)
    judge = pycocotools_judge(*repeated(study, predictions, weights))
    assert_equal_figures(coco_matches(study, predictions).figures(weights), judge.stats)


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_crowd_regions_are_ignored_as_pycocotools_ignores_them(seed, ties, n_classes):
    study, predictions = crowded_study(seed, ties=ties, n_classes=n_classes)
    stats = pycocotools_judge(study, predictions).stats
    assert_equal_figures(coco_matches(study, predictions).figures(), stats)
    matches = match_dataset(study, predictions)
    assert average_precision(matches) == pytest.approx(stats[1], abs=1e-12)
    assert tide(study, predictions).ap50 == pytest.approx(stats[1], abs=1e-12)
    assert matches.n_ignored.sum() > 10
    by_size = by_box_size(study, predictions)
    for area, of_size in zip(stats_at_iou50(study, predictions), by_size.values(), strict=True):
        assert average_precision(of_size) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_weighted_figures_with_crowd_regions_are_those_of_pycocotools(seed):
    study, predictions = crowded_study(seed, ties=True)
    weights = np.random.default_rng(seed).integers(0, 5, len(study)).astype(float)
    judge = pycocotools_judge(*repeated(study, predictions, weights))
    assert_equal_figures(coco_matches(study, predictions).figures(weights), judge.stats)


def stats_at_iou50(study, predictions):
    """Return pycocotools' AP50 of small, medium and large truth boxes."""
    precision = pycocotools_judge(study, predictions).eval["precision"][0, :, :, 1:, -1]
    return [np.mean(of_area[:, (of_area > -1).all(axis=0)]) for of_area in np.moveaxis(precision, 2, 0)]


def test_of_a_set_without_an_image_or_a_class_only_the_rest_is_evaluated():
    study, predictions = random_study(0, n_classes=3)
    first = {one.image_id: one for one in study if 1 not in one.classes}  # class 1 is never true, and often found
    few = Dataset(tuple(first.values()), study.class_names)
    seen = {image_id: predictions[image_id] for image_id in list(first)[::2]}
    judged = Dataset(tuple(first[image_id] for image_id in seen), study.class_names)
    assert any(1 in one.classes for one in seen.values())
    assert_equal_figures(coco_matches(few, seen).figures(), pycocotools_judge(judged, seen).stats)


def test_the_twelve_figures_are_those_of_faster_coco_eval():
    faster = pytest.importorskip("faster_coco_eval")
    study, predictions = random_study(1)
    truth = faster.COCO(to_coco(study))
    judge = faster.COCOeval_faster(
        truth, truth.loadRes(result_rows(predictions)), "bbox", print_function=lambda *_: None
    )
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert_equal_figures(coco_matches(study, predictions).figures(), judge.stats[:12])


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_that_of_pycocotools(seed):
    study, predictions = random_study(seed, ties=True)
    matches = coco_matches(study, predictions)
    recall, precision = matches.curve()
    np.testing.assert_allclose(recall, np.arange(101) / 100, atol=1e-12)
    expected = pycocotools_judge(study, predictions).eval["precision"][0, :, :, 0, -1].mean(axis=1)
    np.testing.assert_allclose(precision, expected, rtol=0, atol=1e-12)
    assert precision.mean() == pytest.approx(matches.figures()["AP50"], abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_ap50_of_matched_results_is_that_of_pycocotools(seed, ties):
    study, predictions = random_study(seed, ties=ties)
    expected = pycocotools_judge(study, predictions).stats[1]
    assert average_precision(match_dataset(study, predictions)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_ap50_of_matched_results_is_that_of_pycocotools_on_repeated_images(seed):
    study, predictions = random_study(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(study)).astype(float)
    expected = pycocotools_judge(*repeated(study, predictions, weights)).stats[1]
    assert average_precision(match_dataset(study, predictions), weights) == pytest.approx(expected, abs=1e-12)


# order of the boxes (hit or false, all of score .5), weight of the image, AP50. The image has one truth box.
TIE_CASES = [
    ("1 hit first, once", (1, 9), 1, 1.0),
    # hit, false, hit, false: recall 1/2 at precision 1 (51 points), recall 1 at precision 2/3 (50)
    ("2 hit first, twice", (1, 9), 2, (51 + 50 * 2 / 3) / 101),
    # precision 1 up to recall 1/3 (points 0 to .33: 34), 2/3 up to 2/3 (33 more), 3/5 up to 1 (34)
    ("3 hit first, thrice", (1, 9), 3, (34 + 33 * 2 / 3 + 34 * 3 / 5) / 101),
    ("4 false first, once", (9, 1), 1, 1 / 2),
    ("5 false first, twice", (9, 1), 2, 1 / 2),  # false, hit, false, hit: 1/2 and 2/4
    ("6 not at all", (1, 9), 0, None),
]


@pytest.mark.parametrize("case", TIE_CASES, ids=[case[0] for case in TIE_CASES])
def test_copies_of_an_image_with_a_tie_come_one_after_the_other(case):
    _, numbers, weight, expected = case
    matches = coco_matches(dataset(record(1, (1,))), {1: found(*((number, 0.5) for number in numbers))})
    value = matches.figures(np.array([float(weight)]))["AP50"]
    assert np.isnan(value) if expected is None else value == pytest.approx(expected)


def test_copies_from_the_eighth_on_are_counted_together():
    # hit, false, hit, false, ...: copy k has precision k / (2 k - 1); copies 8 to 12 are five hits, then five false
    matches = coco_matches(dataset(record(1, (1,))), {1: found((1, 0.5), (9, 0.5))})
    reached = [1, *(k / (2 * k - 1) for k in range(1, 8)), 12 / 19]  # 7 hits and 7 false before, then 5 hits
    # the envelope at recall r of 12 copies: the highest precision at r or more
    needed = [next(k for k in range(13) if k / 12 >= r / 100) for r in range(101)]
    expected = np.mean([max(reached[max(k, 1) if k < 8 else 8 :]) for k in needed])
    assert matches.figures(np.array([12.0]))["AP50"] == pytest.approx(expected)


def test_of_two_equal_overlaps_the_match_is_that_of_pycocotools():
    # the first box overlaps both truths by 20/30; the second is one of them exactly, so the choice decides
    truth = [[0, 0, 20, 10], [10, 0, 30, 10]]
    for boxes in ([[0, 0, 30, 10], [0, 0, 20, 10]], [[0, 0, 30, 10], [10, 0, 30, 10]]):
        study, predictions = one_image(truth, boxes, [0.9, 0.8])
        expected = pycocotools_judge(study, predictions).stats[1]
        assert average_precision(match_dataset(study, predictions)) == pytest.approx(expected, abs=1e-12)


# a square's side in pixels -> the sizes it counts in; both ends of a size belong to it
@pytest.mark.parametrize(
    ("side", "sizes"), [(31, "small"), (32, "small medium"), (33, "medium"), (96, "medium large"), (97, "large")]
)
def test_where_small_ends_and_large_begins(side, sizes):
    study, predictions = one_image([[0, 0, side, side]], [[0, 0, side, side]], [0.9])
    figures = coco_matches(study, predictions).figures()
    for size in ("small", "medium", "large"):
        for name in (f"AP {size}", f"AR {size}"):
            assert figures[name] == pytest.approx(1) if size in sizes else np.isnan(figures[name])


def test_a_box_of_another_size_is_no_false_positive_among_the_small():
    # truth 20 px. First a wrong box of 100 px (ignored), then the right one, then a wrong box of 20 px
    boxes = [[200, 200, 300, 300], [0, 0, 20, 20], [100, 0, 120, 20]]
    study, predictions = one_image([[0, 0, 20, 20]], boxes, [0.9, 0.8, 0.7])
    figures = coco_matches(study, predictions).figures()
    assert figures["AP small"] == pytest.approx(1)
    assert figures["AP50"] == pytest.approx(1 / 2)


# place of the right box among the wrong ones -> AR@1, AR@10, AR@100
@pytest.mark.parametrize(
    ("place", "expected"),
    [(1, (1, 1, 1)), (2, (0, 1, 1)), (10, (0, 1, 1)), (11, (0, 0, 1)), (100, (0, 0, 1)), (101, (0, 0, 0))],
)
def test_how_many_boxes_of_an_image_count(place, expected):
    boxes = [[200, 200, 210, 210]] * (place - 1) + [[0, 0, 20, 20]]
    study, predictions = one_image([[0, 0, 20, 20]], boxes, np.linspace(0.9, 0.1, place))
    figures = coco_matches(study, predictions).figures()
    assert [figures[name] for name in ("AR@1", "AR@10", "AR@100")] == pytest.approx(expected)
    assert_equal_figures(figures, pycocotools_judge(study, predictions).stats)


def test_who_knows_the_truth_gets_one():
    study, _ = random_study(2)
    figures = coco_matches(study, truth_as_detections(study)).figures()
    ones = [name for name in STATS if name != "AR@1"]
    assert [figures[name] for name in ones] == pytest.approx([1.0] * 11)
    # with one box per image and class, at most one truth box of each is found; mean over the two classes
    per_image = np.array([np.bincount(one.classes, minlength=2) for one in study])
    assert figures["AR@1"] == pytest.approx(np.mean((per_image > 0).sum(axis=0) / per_image.sum(axis=0)))


def test_a_size_that_does_not_exist_is_not_defined():
    study = dataset(record(1, (1, 2)), record(2))
    figures = coco_matches(study, {1: found((1, 0.9), (2, 0.8)), 2: found()}).figures()
    assert [figures[name] for name in ("AP", "AP small", "AR@10", "AR small")] == pytest.approx([1] * 4)
    assert figures["AR@1"] == pytest.approx(1 / 2)
    for name in ("AP medium", "AP large", "AR medium", "AR large"):
        assert np.isnan(figures[name])


@pytest.mark.parametrize("predictions", [{}, {1: found()}, {1: found((1, 0.9))}])
def test_without_truth_nothing_is_defined(predictions):
    matches = coco_matches(dataset(record(1)), predictions)
    assert np.isnan(list(matches.figures().values())).all()
    assert [len(points) for points in matches.curve()] == [0, 0]


def test_without_a_detection_nothing_is_found():
    matches = coco_matches(dataset(record(1, (1,)), record(2)), {1: found(), 2: found()})
    figures = matches.figures()
    assert (figures["AP"], figures["AP small"], figures["AR@100"]) == (0, 0, 0)
    assert np.isnan(figures["AP large"])
    assert matches.curve()[1].max() == 0


def test_weights_of_nothing_define_nothing():
    study, predictions = random_study(0)
    assert np.isnan(list(coco_matches(study, predictions).figures(np.zeros(len(study))).values())).all()


def test_it_does_not_matter_in_how_many_portions_images_are_matched(monkeypatch):
    study, predictions = random_study(4, ties=True)
    whole = coco_matches(study, predictions).figures()
    monkeypatch.setattr(coco_eval, "CHUNK", 7)
    assert coco_matches(study, predictions).figures() == whole


def test_images_are_in_order_of_their_id():
    study = dataset(record(7, (1,)), record(3, (1,)))
    matches = coco_matches(study, {7: found((1, 0.9)), 3: found((2, 0.9))})
    assert matches.figures(np.array([0.0, 1.0]))["AP50"] == pytest.approx(1)  # image 7 alone
    assert matches.figures(np.array([1.0, 0.0]))["AP50"] == 0


def test_it_is_silent_unless_asked(capsys):
    study, predictions = dataset(record(1, (1,))), {1: found((1, 0.9))}
    coco_matches(study, predictions)
    assert capsys.readouterr() == ("", "")
    coco_matches(study, predictions, progress="COCO")
    said = capsys.readouterr()
    assert said.out == ""
    assert "COCO: 100%" in said.err
