"""Ensembles with test-time augmentation: several detectors and orientations as one detector."""

import json

import numpy as np
import pytest

from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.ensemble import EnsembleConfig, EnsembleDetector
from fracture_det.inference.registry import DETECTORS, open_detector
from tests.inference.toys import BrightDetector

IMAGE = np.zeros((60, 100, 3), np.uint8)
IMAGE[20:40, 50:80] = 250  # BrightDetector answers 50 20 80 40 with .8, and 0 0 4 4 with .1


@pytest.fixture(autouse=True)
def _bright(monkeypatch):
    monkeypatch.setitem(DETECTORS, "bright", "tests.inference.toys:open_bright")
    monkeypatch.setitem(DETECTORS, "at", "tests.inference.toys:open_bright_at")


def write(folder, **settings):
    path = folder / "ensemble.json"
    path.write_text(json.dumps({"title": "Both", "members": ["bright:"], **settings}))
    return path


class TestPredict:
    def test_a_box_that_every_orientation_shows_keeps_place_and_score(self):
        fused = EnsembleDetector(
            [BrightDetector()], EnsembleConfig("t", ("bright:",), ("identity", "mirror", "quarter_turn"))
        )
        (found,) = fused.predict([IMAGE])
        assert found.boxes[0].tolist() == [50, 20, 80, 40]
        assert found.scores[0] == pytest.approx(0.8)

    def test_one_that_hangs_on_the_orientation_counts_for_its_share(self):
        # The corner box is top left of each turned image, so elsewhere on the radiograph each time.
        fused = EnsembleDetector([BrightDetector()], EnsembleConfig("t", ("bright:",), ("identity", "mirror")))
        (found,) = fused.predict([IMAGE])
        assert found.scores[1:] == pytest.approx([0.05, 0.05])
        assert sorted(found.boxes[1:].tolist()) == [[0, 0, 4, 4], [96, 0, 100, 4]]

    def test_every_member_sees_every_orientation_of_a_whole_batch_once(self):
        members = [BrightDetector(), BrightDetector()]
        fused = EnsembleDetector(members, EnsembleConfig("t", ("a:", "b:"), ("identity", "flip")))
        assert len(fused.predict([IMAGE, IMAGE, IMAGE])) == 3
        assert [member.batches for member in members] == [[6], [6]]

    def test_no_image_no_prediction(self):
        assert EnsembleDetector([BrightDetector()], EnsembleConfig("t", ("bright:",))).predict([]) == []


class TestOpen:
    def test_by_its_folder_with_members_beside_it(self, tmp_path):
        write(tmp_path, members=["at:one", "at:two"], orientations=["identity", "flip"], operating_score=0.3)
        (tmp_path / "MODEL_CARD.md").write_text("# Card")
        fused = open_detector(f"ensemble:{tmp_path}")
        assert isinstance(fused, Detector)
        assert [member.info.name for member in fused.members] == [str(tmp_path / "one"), str(tmp_path / "two")]
        assert (fused.info.operating_score, fused.info.card) == (0.3, tmp_path / "MODEL_CARD.md")
        assert fused.info.name == f"Both {fused.info.sha256[:8]}"
        assert fused.info.about["orientations"] == "identity, flip"

    def test_another_member_or_orientation_is_another_detector(self):
        def digest(*members, orientations=("identity",)):
            return EnsembleDetector(members, EnsembleConfig("t", ("a:",) * len(members), orientations)).info.sha256

        one, two = BrightDetector(), BrightDetector(sha256="b" * 64)
        assert len({digest(one), digest(two), digest(one, two), digest(one, orientations=("mirror",))}) == 4
        assert digest(one) == digest(BrightDetector())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"members": []}, "members and orientations: expected at least one"),
            ({"orientations": ["sideways"]}, r"\['sideways'\] unknown"),
            ({"iou": 2}, r"iou: expected 0\.\.1, got 2"),
            ({"iou": ".5"}, r"ensemble\.json: iou: expected a number, got '\.5'"),
            ({"title": None}, "title: expected a text, got None"),
            ({"members": "d2:x"}, "members: expected a list, got 'd2:x'"),
            ({"members": ["fused:."]}, "'fused:.' is itself an ensemble"),
            ({"members": ["ensemble:."]}, "is itself an ensemble"),
            ({"members": ["shipped"]}, "expected scheme:path"),
            ({"colour": "red"}, "colour: unknown, got 'red'"),
            ({"members": ["bright"]}, "expected scheme:path"),
            ({"members": ["nothing:x"]}, "expected one of shipped"),
        ],
    )
    def test_errors_name_file_or_field_and_value(self, tmp_path, settings, message):
        write(tmp_path, **settings)
        with pytest.raises(DetectorError, match=message):
            open_detector(f"ensemble:{tmp_path}")

    def test_a_folder_without_the_file(self, tmp_path):
        with pytest.raises(DetectorError, match=r"ensemble\.json: cannot be read: No such file"):
            open_detector(f"ensemble:{tmp_path}")

    def test_the_scheme_and_the_file_name_of_before_still_open_it(self, tmp_path, caplog):
        write(tmp_path, members=["at:x"]).rename(tmp_path / "fusion.json")
        assert open_detector(f"fused:{tmp_path}").info.name.startswith("Both ")
        assert [record.message for record in caplog.records] == [
            f"detector fused:{tmp_path}: the scheme fused: is deprecated; write ensemble:",
            f"{tmp_path}/fusion.json: this name is deprecated; call the file ensemble.json",
        ]
        caplog.clear()
        write(tmp_path, title="New", members=["at:x"])
        assert open_detector(f"ensemble:{tmp_path}").info.name.startswith("New ")
        assert not caplog.records

    def test_the_file_is_written_and_read_back(self, tmp_path):
        config = EnsembleConfig("t", ("d2:a", "d2:b"), ("identity", "flip"), 0.6, 0.4)
        config.save(tmp_path / "ensemble.json")
        assert EnsembleConfig.load(tmp_path / "ensemble.json") == config

    def test_members_that_know_other_classes_are_refused(self):
        other = BrightDetector(class_names=("cat",))
        with pytest.raises(DetectorError, match="knows"):
            EnsembleDetector([BrightDetector(), other], EnsembleConfig("t", ("a:", "b:")))
