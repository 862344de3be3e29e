"""Match rules on whole data sets; boxes of cases.py never overlap."""

import pytest

from fracture_det.evaluation.matching import MATCH_RULES, match_dataset
from tests.evaluation.cases import dataset, found, record


@pytest.mark.parametrize("rule", MATCH_RULES)
def test_the_truth_hits_by_every_rule(rule):
    matches = match_dataset(
        dataset(record(1, (1, 2)), record(2)), {1: found((1, 0.9), (2, 0.8)), 2: found()}, rule=rule
    )
    assert matches.hit.tolist() == [True, True]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="iou50, iou30, centre, got 'iou75'"):
        match_dataset(dataset(), {}, rule="iou75")
