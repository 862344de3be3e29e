"""AP from matched results against its judges, pycocotools and faster-coco-eval."""

from dataclasses import replace

import numpy as np
import pytest

from fracture_det.data.coco import to_coco
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.detections import Detections
from fracture_det.evaluation.coco import coco_result
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.metrics import average_precision
from tests.evaluation.cases import dataset, found, random_study, record


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_ap50_of_matched_results_is_that_of_pycocotools(seed, ties):
    study, predictions = random_study(seed, ties=ties)
    expected = coco_result(study, predictions).stats["AP50"]
    assert average_precision(match_dataset(study, predictions)) == pytest.approx(expected, abs=1e-9)
    assert 0.2 < expected < 0.95  # the study is neither empty nor solved


@pytest.mark.parametrize("seed", range(4))
def test_weighted_ap50_is_that_of_pycocotools_on_repeated_images(seed):
    study, predictions = random_study(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(study))
    records, repeated = [], {}
    for one, weight in zip(study, weights, strict=True):
        for _ in range(weight):
            repeated[len(records)] = predictions[one.image_id]
            records.append(replace(one, image_id=len(records)))
    expected = coco_result(Dataset(tuple(records), study.class_names), repeated).stats["AP50"]
    value = average_precision(match_dataset(study, predictions), weights.astype(float))
    assert value == pytest.approx(expected, abs=1e-9)


def test_of_two_equal_overlaps_the_match_is_that_of_pycocotools():
    # the first box overlaps both truths by 20/30; the second is one of them exactly, so the choice decides
    truth = np.array([[0, 0, 20, 10], [10, 0, 30, 10]], float)
    study = dataset(ImageRecord(1, "a.png", 50, 50, "a", None, truth, np.zeros(2, np.int64)))
    for boxes in ([[0, 0, 30, 10], [0, 0, 20, 10]], [[0, 0, 30, 10], [10, 0, 30, 10]]):
        predictions = {1: Detections.from_unsorted(boxes, [0.9, 0.8], [0, 0])}
        expected = coco_result(study, predictions).stats["AP50"]
        assert average_precision(match_dataset(study, predictions)) == pytest.approx(expected, abs=1e-9)


def test_the_twelve_figures_are_those_of_faster_coco_eval():
    faster = pytest.importorskip("faster_coco_eval")
    study, predictions = random_study(1)
    truth = faster.COCO(to_coco(study))
    rows = [
        {"image_id": image_id, "category_id": int(label) + 1, "bbox": [*b[:2], *(b[2:] - b[:2])], "score": float(score)}
        for image_id, one in predictions.items()
        for b, score, label in zip(one.boxes.astype(float), one.scores, one.classes, strict=True)
    ]
    judge = faster.COCOeval_faster(truth, truth.loadRes(rows), "bbox", print_function=lambda *_: None)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    ours = [-1 if value is None else value for value in coco_result(study, predictions).stats.values()]
    np.testing.assert_allclose(ours, judge.stats[:12], atol=1e-9)


def test_the_truth_scores_one():
    study = dataset(record(1, (1, 2)), record(2))
    result = coco_result(study, {1: found((1, 0.9), (2, 0.8)), 2: found()})
    assert result.stats["AP"] == pytest.approx(1)
    assert result.stats["AR@10"] == pytest.approx(1)
    assert result.stats["AR@1"] == pytest.approx(1 / 2)
    assert result.stats["AP large"] is None
    assert result.precision == pytest.approx(1)
    assert len(result.recall) == 101


@pytest.mark.parametrize("predictions", [{}, {1: found()}, {1: found((1, 0.9))}])
def test_without_truth_nothing_is_defined(predictions):
    result = coco_result(dataset(record(1)), predictions)
    assert set(result.stats.values()) == {None}
    assert len(result.precision) == 0


def test_it_is_silent(capsys):
    coco_result(dataset(record(1, (1,))), {1: found((1, 0.9))})
    assert capsys.readouterr() == ("", "")
