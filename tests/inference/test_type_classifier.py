"""Types told by a classifier beside a detector: rows of types, files."""

import json
import shutil

import numpy as np
import pytest
import torch

from fracture_det.baselines.speed.candidates import model_files
from fracture_det.export.type_classifier import export_type_classifier
from fracture_det.inference.base import DetectorError
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.registry import DETECTORS, open_detector
from fracture_det.inference.type_classifier import (
    FILES,
    TypeClassifier,
    TypeClassifierConfig,
    TypedDetector,
    squares_of,
)
from fracture_det.modeling.type_network import TypeFeatures, TypeNetwork
from fracture_det.registry.packing import copy_detector
from fracture_det.structures.detections import Detections
from tests.inference.toys import BrightDetector

NAMES = ("spiral", "oblique", "avulsion")
IMAGE = np.zeros((60, 100, 3), np.uint8)
IMAGE[20:40, 50:80] = 250  # BrightDetector answers 50 20 80 40 with .8, and 0 0 4 4 with .1


def settings(**changes):
    given = {"type_names": NAMES, "sizes": (64, 96), "min_score": 0.24, "fitted_on": "nothing"}
    return TypeClassifierConfig(**{**given, **changes})


@pytest.fixture(scope="module")
def network():
    """An ImageNet backbone under a random layer."""
    features = TypeFeatures()
    n_features = 2 * features(torch.zeros(1, 1, 64, 64, dtype=torch.uint8)).shape[1]
    random = np.random.default_rng(0)
    return TypeNetwork(features, random.normal(0, 0.02, (n_features, len(NAMES))), np.array([0.1, 0.0, -0.1]))


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("types")
    export_type_classifier(network, settings(confidence=0.5, accuracy=0.7), folder)
    return folder


@pytest.fixture(scope="module")
def classifier(exported):
    return TypeClassifier(exported)


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "types")


def change(folder, **changes):
    path = folder / "classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    write_checksums(*(folder / name for name in FILES))


class FoundBoxes:
    """Finds the same boxes on every image."""

    def __init__(self, boxes, scores):
        self.info = BrightDetector().info
        self.found = Detections.from_unsorted(boxes, scores, [0] * len(scores))

    def predict(self, images):
        return [self.found for _ in images]


def test_squares_keep_the_shape_and_lie_in_the_middle():
    small, large = squares_of(np.full((20, 40), 200, np.uint8), (64, 96))
    assert (small.shape, large.shape) == ((64, 64), (96, 96))
    assert (small[16:48] == 200).all()
    assert not small[:16].any()
    assert not small[48:].any()


class TestTypedDetector:
    def test_boxes_and_scores_stay_and_each_row_is_a_probability(self, classifier):
        raw = BrightDetector()
        typed = TypedDetector(raw, classifier)
        (plain,), (found,) = raw.predict([IMAGE]), typed.predict([IMAGE])

        assert (found.boxes.tolist(), found.scores.tolist()) == (plain.boxes.tolist(), plain.scores.tolist())
        assert found.types.shape == (2, 3)
        assert found.types.sum(axis=1) == pytest.approx(1)
        assert (typed.info.type_names, typed.info.type_confidence, typed.info.type_accuracy) == (NAMES, 0.5, 0.7)
        assert classifier.sha256 in typed.info.about["types told by"]
        assert typed.info.sha256 == raw.info.sha256

    def test_all_boxes_have_the_types_of_the_radiograph(self, classifier):
        random = np.random.default_rng(1)
        image = np.repeat(random.integers(0, 255, (100, 60, 1), dtype=np.uint8), 3, axis=2)
        found, other = TypedDetector(FoundBoxes([[0, 0, 30, 30], [20, 60, 55, 95]], [0.9, 0.1]), classifier).predict(
            [image, IMAGE]
        )
        of_image = classifier.probabilities(image[..., 0])

        assert found.types == pytest.approx(np.tile(of_image, (2, 1)), abs=1e-6)
        assert found.image_types() == pytest.approx(of_image, abs=1e-6)
        assert other.types[0] != pytest.approx(of_image, abs=1e-3)

    @pytest.mark.parametrize("scores", [[], [0.23, 0.1]])
    def test_without_a_finding_there_is_no_type(self, classifier, scores):
        boxes = np.array([[0, 0, 30, 30], [60, 60, 95, 95]])[: len(scores)].reshape(-1, 4)
        (found,) = TypedDetector(FoundBoxes(boxes, scores), classifier).predict([IMAGE])
        assert found.types is None

    def test_one_that_tells_types_itself_is_refused(self, classifier):
        with pytest.raises(DetectorError, match="tells types itself"):
            TypedDetector(BrightDetector(type_names=NAMES), classifier)


class TestOpen:
    def test_an_ensemble_names_its_classifier(self, folder, monkeypatch):
        monkeypatch.setitem(DETECTORS, "at", "tests.inference.toys:open_bright_at")
        content = {"title": "Typed", "members": ["at:one"], "types": "types"}
        (folder.parent / "ensemble.json").write_text(json.dumps(content))
        detector = open_detector(f"ensemble:{folder.parent}")

        assert detector.info.type_names == NAMES
        assert detector.predict([IMAGE])[0].types is not None

    def test_where_an_ensemble_goes_its_classifier_goes_too(self, folder, tmp_path, monkeypatch):
        monkeypatch.setitem(DETECTORS, "at", "tests.inference.toys:open_bright_at")
        (folder.parent / "one").mkdir()
        (folder.parent / "one" / "weights").touch()
        content = {"title": "Typed", "members": ["at:one"], "types": folder.name}
        (folder.parent / "ensemble.json").write_text(json.dumps(content))
        copied = copy_detector(f"ensemble:{folder.parent}", tmp_path / "version" / "detector")
        shutil.rmtree(folder)

        detector = open_detector(f"ensemble:{tmp_path / 'version' / copied.partition(':')[2]}")
        assert detector.predict([IMAGE])[0].types is not None
        assert {file.name for file in model_files(f"ensemble:{tmp_path / 'version' / 'detector'}")} >= set(FILES)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(DetectorError, match=name):
            TypeClassifier(folder)

    @pytest.mark.parametrize("name", FILES)
    def test_a_changed_byte_is_noticed(self, folder, name):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(DetectorError, match=f"{name}: SHA-256"):
            TypeClassifier(folder)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"sizes": [64, 128]}, "shapes"),
            ({"type_names": ["spiral", "oblique"]}, "shapes"),
            ({"min_score": 2}, "min_score: expected 0..1, got 2"),
            ({"colour": 1}, "colour"),
        ],
    )
    def test_settings_that_do_not_fit_are_named(self, folder, changes, told):
        change(folder, **changes)
        with pytest.raises(DetectorError, match=told):
            TypeClassifier(folder)
