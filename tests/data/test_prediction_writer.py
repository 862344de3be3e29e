"""Writing predictions line by line."""

import pytest

from fracture_det.data.prediction_writer import PredictionWriter, cut_torn_line
from fracture_det.data.predictions import (
    ImagePrediction,
    read_predictions,
)
from fracture_det.structures.detections import Detections


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    path = tmp_path / "predictions.jsonl"
    with PredictionWriter(path, "toy", ("fracture",)) as writer:
        writer.write(ImagePrediction("a.png", (1, 1), Detections.empty()))
        assert len(read_predictions(path).images) == 1  # before it is closed
    with pytest.raises(ValueError, match="not open"):
        PredictionWriter(path, "toy", ("fracture",)).write(ImagePrediction("a.png", error="x"))


def test_a_torn_last_line_is_cut_off(tmp_path):
    path = tmp_path / "p.jsonl"
    for before, after, torn in ((b"", b"", False), (b"a\nb", b"a\n", True), (b"a\n", b"a\n", False), (b"a", b"", True)):
        path.write_bytes(before)
        assert cut_torn_line(path) == torn
        assert path.read_bytes() == after
