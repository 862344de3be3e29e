"""One graph from letterbox to boxes: every format answers as its source, alone and in batches."""

import warnings

import numpy as np
import pytest
from PIL import Image

from fracture_det.export.graph import FORMATS, export_graph
from fracture_det.export.verify import ExportError, compare_detectors
from fracture_det.inference.registry import open_detector
from tests.builders import draw_radiograph
from tests.detectors import write_random_detector


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_random_detector(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("radiographs")
    for index, size in enumerate(((320, 256), (100, 300), (64, 64))):
        pixels, _ = draw_radiograph(np.random.default_rng(index), fractured=True, size=size)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_format_finds_what_its_source_finds(to, batch_size, source, radiographs, tmp_path):
    agreement = export_graph(str(source), to, tmp_path, radiographs, batch_size=batch_size)
    assert agreement.n_boxes > 100
    assert (agreement.n_moved, agreement.largest_shift) == (0, pytest.approx(0, abs=1e-4))
    export = open_detector(f"{to}:{tmp_path}")
    original = open_detector(f"d2:{source}")
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in radiographs]
    # Three images: with two per call, the second call has one and a black square.
    for found, expected in zip(export.predict(pixels), original.predict(pixels), strict=True):
        assert len(found) == len(expected)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert export.facts.batch_size == batch_size
    assert export.facts.source_sha256 == original.info.sha256
    assert export.info.about["pixel mean"] == "[123.675, 116.28, 103.53]"
    assert export.info.name.startswith("Faster R-CNN R18-FPN quick ")


@pytest.mark.parametrize(("to", "batch_size"), [("openvino", 1), ("openvino", 2), ("onnx", 1), ("torchscript", 2)])
def test_radiographs_of_many_letterbox_sizes(to, batch_size, radiographs, tmp_path):
    # Traced on a square; the last level of the thinnest has 2 x 1 x 3 anchors, less than are chosen in the square.
    overrides = ("INPUT.LETTERBOX_STEP", "32", "MODEL.RPN.PRE_NMS_TOPK_TEST", "20")
    narrow = write_random_detector(tmp_path / "narrow", overrides=overrides)
    agreement = export_graph(str(narrow), to, tmp_path / "out", radiographs, batch_size=batch_size)
    assert (agreement.n_moved, agreement.largest_shift) == (0, pytest.approx(0, abs=1e-4))
    export, original = open_detector(f"{to}:{tmp_path / 'out'}"), open_detector(f"d2:{narrow}")
    assert export.facts.letterbox_step == 32
    pixels = [np.random.default_rng(n).integers(0, 256, (400, width, 3), np.uint8) for n, width in enumerate((90, 400))]
    pixels += [np.ascontiguousarray(one.transpose(1, 0, 2)) for one in pixels]
    sizes = {export.letterbox.outer_size(one.shape[:2]) for one in pixels}
    assert sizes == {(128, 32), (128, 128), (32, 128)}
    for found, expected in zip(export.predict(pixels), original.predict(pixels), strict=True):
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)


def test_an_image_on_which_nothing_is_found(source, radiographs, tmp_path):
    strict = write_random_detector(tmp_path / "strict", overrides=("MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.0"))
    text = (strict / "config.yaml").read_text().replace("SCORE_THRESH_TEST: 0.0", "SCORE_THRESH_TEST: 0.999")
    (strict / "config.yaml").write_text(text)
    for to in FORMATS:
        agreement = export_graph(str(strict), to, tmp_path / to, radiographs[:1])
        assert agreement.n_boxes == 0
        (found,) = open_detector(f"{to}:{tmp_path / to}").predict([np.zeros((9, 9, 3), np.uint8)])
        assert len(found) == 0


def test_another_model_under_the_same_name_is_noticed(source, radiographs, tmp_path):
    export_graph(str(source), "onnx", tmp_path / "one", radiographs)
    other = write_random_detector(tmp_path / "other", seed=6)
    with pytest.raises(ExportError, match="boxes differ, such as "):
        compare_detectors(open_detector(f"d2:{other}"), open_detector(f"onnx:{tmp_path / 'one'}"), radiographs)


def test_opening_makes_no_warning(source, radiographs, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_graph(str(source), "torchscript", tmp_path, radiographs[:1])
