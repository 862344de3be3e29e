"""Numbered cases with the arithmetic beside them. Boxes of cases.py never overlap: number n hits number n only."""

import itertools

import numpy as np
import pytest

from fracture_det.data.coco import to_coco
from fracture_det.data.records import ImageRecord
from fracture_det.evaluation.froc import FROC_TARGETS, froc_curve
from fracture_det.evaluation.lesion_level import average_precision, lesion_counts
from fracture_det.evaluation.matching import MATCH_RULES, match_dataset
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import dataset, found, random_study, record, result_rows, spread_study, truth_as_detections

NOTHING = found()


def matched(*images):
    """Match images given as (truth numbers, detections)."""
    records = [record(index, truth) for index, (truth, _) in enumerate(images)]
    return match_dataset(dataset(*records), dict(enumerate(one for _, one in images)))


# name, images, score, (TP, FP, truth), precision, recall, F1
LESION_CASES = [
    ("1 one hit", [((1,), found((1, 0.9)))], 0.5, (1, 0, 1), 1.0, 1.0, 1.0),
    ("2 one miss", [((1,), found((2, 0.9)))], 0.5, (0, 1, 1), 0.0, 0.0, 0.0),
    ("3 hit and false", [((1,), found((1, 0.9), (2, 0.8)))], 0.5, (1, 1, 1), 1 / 2, 1.0, 2 / 3),
    ("4 hit below the score", [((1,), found((1, 0.4)))], 0.5, (0, 0, 1), None, 0.0, 0.0),
    ("5 a score of exactly .5 counts", [((1,), found((1, 0.5)))], 0.5, (1, 0, 1), 1.0, 1.0, 1.0),
    ("6 two of three found", [((1, 2, 3), found((1, 0.9), (2, 0.6)))], 0.5, (2, 0, 3), 1.0, 2 / 3, 4 / 5),
    ("7 the same box twice", [((1,), found((1, 0.9), (1, 0.8)))], 0.5, (1, 1, 1), 1 / 2, 1.0, 2 / 3),
    ("8 false on a healthy image", [((1,), found((1, 0.9))), ((), found((1, 0.9)))], 0.5, (1, 1, 1), 0.5, 1.0, 2 / 3),
    ("9 healthy and silent", [((), NOTHING)], 0.5, (0, 0, 0), None, None, None),
    ("10 healthy and loud", [((), found((1, 0.9)))], 0.5, (0, 1, 0), 0.0, None, 0.0),
    ("11 fractured and silent", [((1,), NOTHING)], 0.5, (0, 0, 1), None, 0.0, 0.0),
    ("12 no image", [], 0.5, (0, 0, 0), None, None, None),
]


@pytest.mark.parametrize("case", LESION_CASES, ids=[case[0] for case in LESION_CASES])
def test_boxes_at_an_operating_point(case):
    _, images, score, counts, precision, recall, f1 = case
    result = lesion_counts(matched(*images), score)
    assert (result.true_positives, result.false_positives, result.truth) == counts
    for value, expected in ((result.precision, precision), (result.recall, recall), (result.f1, f1)):
        assert np.isnan(value) if expected is None else value == pytest.approx(expected)
    false_per_image = counts[1] / len(images) if images else None
    assert np.isnan(result.fp_per_image) if not images else result.fp_per_image == pytest.approx(false_per_image)


def test_weights_count_images():
    matches = matched(((1,), found((1, 0.9), (2, 0.8))), ((), found((1, 0.7))), ((1, 2), NOTHING))
    counts = lesion_counts(matches, 0.5, np.array([2.0, 3.0, 0.0]))
    # the first image twice: 2 hits, 2 false, 2 truths; the second thrice: 3 false; five images
    assert (counts.true_positives, counts.false_positives, counts.truth, counts.fp_per_image) == (2, 5, 2, 1)
    curve = froc_curve(matches, np.array([2.0, 3.0, 0.0]))
    assert curve.fp_per_image == pytest.approx([0, 0, 2 / 5, 1])
    assert curve.sensitivity == pytest.approx([0, 1, 1, 1])


# name, images, AP50. COCO reads precision at recall 0, .01, ... 1: 101 points.
AP_CASES = [
    ("1 all found", [((1, 2), found((1, 0.9), (2, 0.8)))], 1.0),
    ("2 none found", [((1,), found((2, 0.9)))], 0.0),
    ("3 no detection", [((1,), NOTHING)], 0.0),
    ("4 no truth", [((), found((1, 0.9)))], None),
    # recall .5 at precision 1 (points 0 to .5: 51); recall 1 at precision 2/3 (points .51 to 1: 50)
    ("5 hit, false, hit", [((1, 2), found((1, 0.9), (9, 0.8), (2, 0.7)))], (51 + 50 * 2 / 3) / 101),
    # false first: precision 1/2 at recall 1/2, then 2/3 at recall 1; the envelope lifts all 101 points to 2/3
    ("6 false, hit, hit", [((1, 2), found((9, 0.9), (1, 0.8), (2, 0.7)))], 2 / 3),
    # half of the truth is never found: 51 points of 1, 50 of 0
    ("7 one of two", [((1, 2), found((1, 0.9)))], 51 / 101),
    # the false box on the healthy image comes between
    ("8 a healthy image counts", [((1,), found((1, 0.5))), ((), found((1, 0.9)))], 1 / 2),
]


@pytest.mark.parametrize("case", AP_CASES, ids=[case[0] for case in AP_CASES])
def test_average_precision(case):
    _, images, expected = case
    value = average_precision(matched(*images))
    assert np.isnan(value) if expected is None else value == pytest.approx(expected)


class TestFroc:
    # two images, three truth boxes; boxes in order: hit .9, false .8, hit .7, false .6, false .6, hit .6
    STUDY = (
        ((1, 2), found((1, 0.9), (9, 0.8), (2, 0.7), (8, 0.6))),
        ((3,), found((7, 0.6), (3, 0.6))),
    )

    def test_points(self):
        curve = froc_curve(matched(*self.STUDY))
        assert curve.score[1:] == pytest.approx([0.9, 0.8, 0.7, 0.6])
        # false positives over 2 images; the three boxes of score .6 enter together
        assert curve.fp_per_image == pytest.approx([0, 0, 1 / 2, 1 / 2, 3 / 2])
        assert curve.sensitivity == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])

    # no interpolation: below 1/2 only the first hit, from 1/2 to below 3/2 two, then all
    @pytest.mark.parametrize(
        ("target", "expected"), [(1 / 8, 1 / 3), (0.49, 1 / 3), (1 / 2, 2 / 3), (1, 2 / 3), (3 / 2, 1), (8, 1)]
    )
    def test_sensitivity_at_a_target(self, target, expected):
        assert froc_curve(matched(*self.STUDY)).at([target])[0] == pytest.approx(expected)

    def test_no_box_finds_nothing(self):
        assert froc_curve(matched(((1,), NOTHING))).at([1.0])[0] == 0

    def test_no_truth_is_not_defined(self):
        assert np.isnan(froc_curve(matched(((), found((1, 0.9))))).at([1.0])[0])

    def test_without_an_image_nothing_is_defined(self):
        curve = froc_curve(matched())
        assert np.isnan(curve.at()).all()
        assert curve.fp_per_image.tolist() == [0]

    def test_healthy_images_count_below_the_line(self):
        # one false box: alone 1 per image, beside three healthy images 1/4
        images = [((1,), found((9, 0.9), (1, 0.8)))]
        assert froc_curve(matched(*images)).at([1 / 4])[0] == 0
        assert froc_curve(matched(*images, *[((), NOTHING)] * 3)).at([1 / 4])[0] == 1

    @pytest.mark.parametrize("rule", MATCH_RULES)
    def test_who_knows_the_truth_gets_one_at_every_target(self, rule):
        study, _ = random_study(2)
        matches = match_dataset(study, truth_as_detections(study), rule=rule)
        assert froc_curve(matches).at().tolist() == [1.0] * len(FROC_TARGETS)
        assert lesion_counts(matches, 0.5).f1 == 1

    @pytest.mark.parametrize("rule", MATCH_RULES)
    def test_it_agrees_with_counting_at_each_threshold(self, rule):
        matches = match_dataset(*random_study(4, ties=True), rule=rule)
        curve = froc_curve(matches)
        for score, fp_per_image, sensitivity in zip(curve.score, curve.fp_per_image, curve.sensitivity, strict=True):
            counts = lesion_counts(matches, score)
            assert counts.recall == pytest.approx(sensitivity)
            assert counts.fp_per_image == pytest.approx(fp_per_image)


class TestFrocAgainstCocoFrocAnalysis:
    """coco-froc-analysis 0.2.15: a box counts above (not at) a threshold, so we take one just below each score; each
    class by itself; false boxes over all images; for each image and class the assignment of boxes to truth with the
    least cost, each truth once. By the centre rule the cost of a pair is 1 when the centre lies in the truth box, its
    edge included, else a million; by IoU a pair must be above (not at) the threshold.

    It differs from ours in two ways, both tested below. It counts the pairs of a million as hits too, so that a box
    anywhere hits as long as the image has a truth box left. And it may give a sure box another truth box than the one
    it overlaps most, so that a less sure box hits as well; ours are given out in order of score.
    """

    def points(self, study, predictions, rule):
        """Return (hits, false boxes) at each threshold, by the judge and by us; all classes together."""
        froc = pytest.importorskip("coco_froc_analysis.froc.froc_curve")
        matches = match_dataset(study, predictions, rule=rule)
        curve = froc_curve(matches)
        ours = np.stack([curve.sensitivity * matches.n_truth, curve.fp_per_image * matches.n_images], axis=1).round(9)
        theirs = [(0, 0)]
        for score in curve.score[1:]:
            below = float(np.nextafter(np.float32(score), np.float32(-1)))
            iou = {"iou50": 0.5, "iou30": 0.3, "centre": None}[rule]
            stats = froc.froc_point(to_coco(study), result_rows(predictions), below, iou is not None, iou)
            assert {one["n_images"] for one in stats.values()} == {len(study)}
            assert sum(one["n_lesions"] for one in stats.values()) == matches.n_truth
            theirs.append((sum(one["LL"] for one in stats.values()), sum(one["NL"] for one in stats.values())))
        return np.array(theirs), ours

    @pytest.fixture
    def only_true_pairs(self, monkeypatch):
        """Mend the judge: a pair that costs a million is no hit."""
        stats = pytest.importorskip("coco_froc_analysis.froc.froc_stats")
        assign = stats.linear_sum_assignment

        def assigned(cost):
            rows, columns = assign(cost)
            true = cost[rows, columns] < 1e6
            return rows[true], columns[true]

        monkeypatch.setattr(stats, "linear_sum_assignment", assigned)

    # As it is, it agrees where no image shows a false box before all its truth boxes of that class are found.
    # name, images as (truth numbers, detections)
    AGREED = (
        ("1 hits, then false boxes", [((1, 2), found((1, 0.9), (2, 0.8), (9, 0.7)))]),
        ("2 the same box again is false", [((1,), found((1, 0.9), (1, 0.8), (1, 0.7)))]),
        ("3 a truth box is missed", [((1, 2), found((2, 0.9)))]),
        ("4 healthy images", [((1,), found((1, 0.5))), ((), found((1, 0.9), (2, 0.3))), ((), NOTHING)]),
        ("5 ties", [((1,), found((1, 0.5))), ((), found((1, 0.5), (2, 0.5))), ((3,), found((3, 0.5)))]),
        ("6 no box is shown", [((1,), NOTHING)]),
    )

    @pytest.mark.parametrize("rule", MATCH_RULES)
    @pytest.mark.parametrize("case", AGREED, ids=[case[0] for case in AGREED])
    def test_where_the_definitions_agree(self, case, rule):
        images = case[1]
        study = dataset(*(record(index, truth) for index, (truth, _) in enumerate(images)))
        theirs, ours = self.points(study, dict(enumerate(one for _, one in images)), rule)
        np.testing.assert_allclose(theirs, ours, atol=1e-9)

    def test_its_sensitivity_and_false_positives_per_image_are_ours(self):
        froc = pytest.importorskip("coco_froc_analysis.froc.froc_curve")
        study = dataset(record(0, (1, 2)), record(1))
        predictions = {0: found((1, 0.9), (2, 0.6), (9, 0.4)), 1: found((1, 0.7))}
        for score, target in ((0.5, 1 / 2), (0.8, 0), (0.3, 1)):
            stats = froc.froc_point(to_coco(study), result_rows(predictions), score, False, None)
            sensitivity, false_per_image = froc.calc_scores(stats, {}, {})
            assert false_per_image[1] == [target]
            assert froc_curve(match_dataset(study, predictions, rule="centre")).at([target]) == sensitivity[1]

    def test_it_takes_a_box_anywhere_for_a_hit(self):
        # one truth box, one box in another place: no hit and one false box
        theirs, ours = self.points(dataset(record(0, (1,))), {0: found((9, 0.9))}, "centre")
        assert theirs[1].tolist() == [1, 0]
        assert ours[1].tolist() == [0, 1]

    @pytest.mark.usefixtures("only_true_pairs")
    @pytest.mark.parametrize("rule", MATCH_RULES)
    @pytest.mark.parametrize("seed", range(3))
    def test_mended_it_agrees_on_truth_boxes_apart(self, seed, rule):
        theirs, ours = self.points(*spread_study(seed), rule)
        np.testing.assert_allclose(theirs, ours, atol=1e-9)
        hits, false = ours[-1]
        assert hits > 20
        assert false > 100

    @pytest.mark.usefixtures("only_true_pairs")
    def test_mended_it_may_still_find_more_where_truth_boxes_overlap(self):
        # the surer box (centre 14) lies in both: IoU 15/23 with 0..20, 13/25 with 10..30; the other (centre 5) in the
        # first only. We give the first truth to the surer box, the judge gives it the second
        truth = np.array([[0, 0, 20, 10], [10, 0, 30, 10]], float)
        study = dataset(ImageRecord(1, "a.png", 50, 50, "a", None, truth, np.zeros(2, np.int64)))
        boxes = Detections.from_unsorted([[5, 0, 23, 10], [0, 0, 10, 10]], [0.9, 0.8], [0, 0])
        theirs, ours = self.points(study, {1: boxes}, "centre")
        assert theirs.tolist() == [[0, 0], [1, 0], [2, 0]]
        assert ours.tolist() == [[0, 0], [1, 0], [1, 1]]
        # never fewer
        for theirs, ours in itertools.starmap(self.points, ((*random_study(seed), "centre") for seed in range(2))):
            assert (theirs[:, 0] >= ours[:, 0]).all()
