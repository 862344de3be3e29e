"""The Detectron2 detector: frames, batches, and what it refuses to open."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from safetensors.torch import load_file, save_file

from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.batch import predict_to_file
from fracture_det.inference.detectron2 import D2Detector, undo_letterbox
from fracture_det.inference.prediction_folder import overlay_timer
from fracture_det.inference.registry import open_detector
from fracture_det.inference.stage_timer import STAGES, StageTimer
from fracture_det.structures.hashes import sha256_of
from fracture_det.structures.letterbox import Letterbox
from tests.detectors import write_random_detector
from tests.paths import FRACATLAS, present

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def detector(folder):
    return open_detector(f"d2:{folder}")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((90, 200), (301, 77), (128, 128))]


def test_it_is_a_detector(detector, folder):
    assert isinstance(detector, Detector)
    assert detector.info.class_names == ("fracture",)
    assert detector.info.sha256 == sha256_of(folder / "model.safetensors")
    assert detector.info.operating_score == 0.5
    assert detector.info.card is None
    assert detector.info.device == "cpu"
    assert detector.info.provenance == {
        "weights SHA-256": detector.info.sha256,
        "config": "config.yaml",
        "config SHA-256": sha256_of(folder / "config.yaml"),
    }


def test_boxes_lie_on_their_own_image(detector, images):
    for image, found in zip(images, detector.predict(images), strict=True):
        assert len(found) > 0
        assert found.boxes.min() >= 0
        assert (found.boxes[:, 2] <= image.shape[1]).all()
        assert (found.boxes[:, 3] <= image.shape[0]).all()


def test_a_batch_finds_what_single_images_find(detector, images):
    together = detector.predict(images)
    for image, batched in zip(images, together, strict=True):
        (alone,) = detector.predict([image])
        assert len(alone) == len(batched)
        np.testing.assert_allclose(alone.scores, batched.scores, atol=1e-4)


def test_with_a_step_images_of_one_letterbox_size_go_together(tmp_path, images):
    narrow = open_detector(f"d2:{write_random_detector(tmp_path, overrides=('INPUT.LETTERBOX_STEP', '32'))}")
    several = [images[1], images[0], np.ascontiguousarray(images[1][::-1])]
    seen = []
    model = narrow.predictor.model
    handle = model.register_forward_pre_hook(
        lambda _, inputs: seen.append([tuple(one["image"].shape[1:]) for one in inputs[0]])
    )
    together = narrow.predict(several)
    handle.remove()
    assert seen == [[(128, 64), (128, 64)], [(64, 128)]]
    for image, batched in zip(several, together, strict=True):
        (alone,) = narrow.predict([image])
        np.testing.assert_allclose(alone.boxes, batched.boxes, atol=1e-2)


def test_no_image_no_prediction(detector):
    assert detector.predict([]) == []


def test_it_predicts_as_detectron2s_predictor_does_on_bgr(detector, images):
    (found,) = detector.predict(images[:1])
    instances = detector.predictor(images[0][:, :, ::-1])["instances"]
    same = undo_letterbox(instances, detector.predictor.letterbox, images[0].shape[:2])
    np.testing.assert_array_equal(found.boxes, same.boxes)


def test_undoing_the_letterbox_scales_clips_and_drops_the_padding():
    # 100 x 200 (h x w) in 50 px: scale 1/4, the image fills rows 0..25.
    instances = Instances((50, 50))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 30, 20, 40], [5, 5, 10, 10], [40, 20, 50, 30]]))
    instances.scores = torch.tensor([0.9, 0.8, 0.7])
    instances.pred_classes = torch.zeros(3, dtype=torch.int64)
    found = undo_letterbox(instances, Letterbox(50), (100, 200))
    assert found.boxes.tolist() == [[20, 20, 40, 40], [160, 80, 200, 100]]
    assert found.scores.tolist() == pytest.approx([0.8, 0.7])


def test_a_lower_nms_iou_leaves_fewer_boxes(folder, detector, images):
    strict = open_detector(f"d2:{folder}", nms_iou=0.05)
    assert len(strict.predict(images[:1])[0]) < len(detector.predict(images[:1])[0])
    assert strict.info.about == {**detector.info.about, "NMS IoU": "0.05"}


def test_it_tells_the_clock_its_stages(detector, images):
    ticks = itertools.count()  # each look at the clock is one second later
    with StageTimer(lambda: float(next(ticks))) as clock:
        detector.predict(images)
    # the model is entered twice: the second time it hands over what it found
    assert clock.seconds == {"preprocess": 1, "model": 2, "postprocess": 1}


@pytest.mark.real
def test_stages_of_the_shipped_detector_on_two_real_radiographs(tmp_path):
    folder = present(FRACATLAS / "images/Fractured")
    paths = sorted(folder.iterdir())[:2]
    detector, files = open_detector("shipped"), [(path.name, path) for path in paths]
    run = predict_to_file(detector, files, tmp_path / "p.jsonl", on_file=overlay_timer(detector), progress=False)
    timing = run.as_timing()
    assert (timing.images, list(timing.stages)) == (2, list(STAGES))
    assert all(0 < stage.median_ms <= stage.p95_ms for stage in timing.stages.values())
    assert ", model on " in timing.machine


def test_weights_that_leave_a_layer_untrained_are_refused(folder, tmp_path):
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text())
    state = {key: value for key, value in load_file(folder / "model.safetensors").items() if "roi_heads" not in key}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(DetectorError, match=r"not a trained detector .*such as roi_heads\.box_head"):
        D2Detector.open(str(tmp_path))


def test_a_file_of_another_hash_than_recorded_is_refused(folder, tmp_path):
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(DetectorError, match="SHA256SUMS says 0000"):
        D2Detector.open(str(tmp_path))


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(DetectorError, match="no such file or folder"):
        open_detector(f"d2:{tmp_path}/nothing")
    with pytest.raises(DetectorError, match=r"none of model\.safetensors"):
        open_detector(f"d2:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(DetectorError, match=r"no config\.yaml beside"):
        open_detector(f"d2:{tmp_path}/model.safetensors")
    (tmp_path / "config.yaml").write_text("MODEL: {COLOUR: red}\nVERSION: 2\n")
    with pytest.raises(DetectorError, match="COLOUR"):
        open_detector(f"d2:{tmp_path}")


@pytest.mark.parametrize("uri", ["", "model.pth", "caffe:model", "d2"])
def test_an_unknown_uri_lists_what_is_known(uri):
    with pytest.raises(DetectorError, match="expected one of shipped, d2:PATH"):
        open_detector(uri)


def test_mixed_precision_finds_nearly_the_same(folder, images, tmp_path):
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    config = (tmp_path / "config.yaml").read_text()
    assert "AMP: false" in config
    (tmp_path / "config.yaml").write_text(config.replace("  AMP: false", "  AMP: true"))
    (mixed,), (exact,) = (open_detector(f"d2:{path}").predict(images[:1]) for path in (tmp_path, folder))
    assert mixed.scores[:5] == pytest.approx(exact.scores[:5], abs=0.05)
    assert (mixed.scores[:5] != exact.scores[:5]).any()
