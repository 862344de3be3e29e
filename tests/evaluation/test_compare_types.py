"""Two detectors that tell types of fracture, compared on the same images."""

from dataclasses import replace

import pytest

from fracture_det.evaluation.comparison import compare
from fracture_det.evaluation.types import answers_of, evaluate_types
from fracture_det.reporting.comparison_report import comparison_markdown
from tests.reporting.typed_report import TOLD, typed_study


def studies():
    study, better = typed_study(n=90, skill=6.0)
    return study, {"better": better, "worse": typed_study(n=90, skill=0.7)[1]}


def compared(found, study, **names):
    return compare(study, found, dict.fromkeys(found, 0.5), n_bootstrap=100, type_names=names)


def test_accuracy_and_macro_f1_of_the_types_are_compared_in_pairs():
    study, found = studies()
    comparison = compared(found, study, better=TOLD, worse=TOLD)
    for name, key in (("type accuracy", "accuracy"), ("type macro F1", "macro_f1")):
        values = []
        for detector in comparison.detectors:
            own = evaluate_types(answers_of(study.records, found[detector.name], TOLD), None, n_bootstrap=0, seed=0)
            assert detector.figures[name].value == own.fractured[key].detector.value
            assert detector.figures[name].n == own.fractured[key].detector.n
            values.append(detector.figures[name].value)
        difference = comparison.pairs[0].differences[name]
        assert difference.value == pytest.approx(values[0] - values[1])
        assert difference.low < difference.value < difference.high
    assert "Type of fracture, macro F1" in comparison_markdown(comparison)


def test_detectors_may_list_their_types_in_another_order():
    study, found = studies()
    turned = {
        number: one if one.types is None else replace(one, types=one.types[:, ::-1])
        for number, one in found["better"].items()
    }
    comparison = compared({"a": found["better"], "b": turned}, study, a=TOLD, b=TOLD[::-1])
    assert comparison.pairs[0].differences["type accuracy"].value == 0


def test_where_one_tells_no_types_they_are_not_compared_and_that_is_said():
    study, found = studies()
    comparison = compared(found, study, better=TOLD, worse=())
    assert "type accuracy" not in comparison.detectors[0].figures
    assert "Types of fracture are not compared: worse tells none." in comparison.notes
    silent = compared(found, study)
    assert not any("Types" in note for note in silent.notes)


def test_where_no_image_has_a_type_that_is_said():
    study, found = studies()
    plain = replace(study, records=tuple(replace(one, attributes={}, types=()) for one in study))
    comparison = compared(found, plain, better=TOLD, worse=TOLD)
    assert "type accuracy" not in comparison.detectors[0].figures
    assert "Types of fracture are not compared: no image has one known type." in comparison.notes
