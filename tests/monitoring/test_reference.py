"""A reference is a file that says where it is broken."""

import json

import numpy as np
import pytest

from fracture_det.monitoring.counts import WatchError
from fracture_det.monitoring.drift import Rule
from fracture_det.monitoring.reference import load_reference, make_reference
from tests.monitoring.cases import SHA, drawn_counts, drawn_reference


@pytest.fixture(scope="module")
def reference():
    return drawn_reference(Rule(draws=100))


def test_what_is_written_comes_back(tmp_path, reference):
    made = reference
    made.save(tmp_path / "new" / "watch.json")
    again = load_reference(tmp_path / "new" / "watch.json")
    assert (again.detector_sha256, again.about, again.rule) == (made.detector_sha256, made.about, made.rule)
    assert again.counts.to_json() == made.counts.to_json()
    assert again.thresholds == pytest.approx(made.thresholds, abs=1e-4)


def test_too_few_radiographs_make_no_reference():
    with pytest.raises(WatchError, match="expected at least 100 radiographs, got 99"):
        make_reference(SHA, "", drawn_counts(np.random.default_rng(0), 99))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format, version: expected 'fracture_det watch reference', 1, got 'other', 1"),
        ({"version": 2}, "format, version: .*, got .*, 2"),
        ({"thresholds": {"grey": 0}}, r"thresholds\.grey: expected a number above 0, got 0"),
        ({"rule": {"rate": "1"}}, "rule.rate: expected a number, got '1'"),
        ({"rule": {"rate": 2}}, r"rule\.rate: .*got 2"),
        ({"counts": {}}, "counts: expected images"),
        ({"strata": None}, "strata"),
        ({"detector_sha256": None}, "detector_sha256"),
    ],
)
def test_a_broken_reference_names_file_and_field(tmp_path, reference, change, message):
    path = tmp_path / "watch.json"
    reference.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WatchError, match=f"watch.json: .*{message}"):
        load_reference(path)


NONE = [(None, "cannot be read"), ("[]", "expected an object"), ("{", "not JSON")]


@pytest.mark.parametrize(("content", "message"), NONE)
def test_no_reference_at_all(tmp_path, content, message):
    path = tmp_path / "watch.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(WatchError, match=f"watch.json: .*{message}"):
        load_reference(path)
