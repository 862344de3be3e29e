"""INT8 of a whole detector: which parts are tried in float; the first layer is centred where it is in 8 bits."""

import numpy as np
import pytest
from PIL import Image

from fracture_det.data.coco import read_coco, write_coco
from fracture_det.export import int8 as int8_module
from fracture_det.export.first_layer import CENTRED_NODE
from fracture_det.export.graph import export_graph
from fracture_det.export.verify import Accuracy, ExportError
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.inference.registry import open_detector
from tests.builders import build_dataset
from tests.detectors import write_random_detector

GOOD, BAD = Accuracy(0.5, 0.9, 4), Accuracy(0.4, 0.9, 4)
# As Detectron2's own ImageNet weights want it, and as torchvision's do.
COLOURS = {
    "BGR": (
        "INPUT.FORMAT",
        "BGR",
        "MODEL.PIXEL_MEAN",
        "[103.53, 116.28, 123.675]",
        "MODEL.PIXEL_STD",
        "[1.0, 1.0, 1.0]",
    ),
    "RGB": (),
}


@pytest.fixture(scope="module", params=COLOURS)
def exported(request, tmp_path_factory):
    """A folder with images/, val.json, and an export to OpenVINO in float."""
    folder = tmp_path_factory.mktemp(request.param)
    write_coco(build_dataset(folder, n_fractured=2, n_healthy=2, seed=1), folder / "val.json")
    source = write_random_detector(folder / "source", overrides=COLOURS[request.param])
    export_graph(str(source), "openvino", folder / "float", sorted((folder / "images").rglob("*.png"))[:1])
    return folder


def run(folder, out, accuracies, monkeypatch):
    """Quantize, with these accuracies of the source and of each attempt; return what was left in float."""
    left = iter(accuracies)
    monkeypatch.setattr(int8_module, "measure_accuracy", lambda *_: next(left))
    images = sorted((folder / "images").rglob("*.png"))
    dataset = read_coco(folder / "val.json")
    *_, kept = int8_module.quantize(folder / "float", out, images, dataset, folder / "images", say=lambda _: None)
    assert next(left, None) is None
    return kept


def is_centred(folder):
    model = quiet_openvino().Core().read_model(folder / "model.xml")
    return any(node.get_friendly_name() == CENTRED_NODE for node in model.get_ordered_ops())


def test_all_in_8_bits_predicts_nearly_as_in_float(exported, tmp_path, monkeypatch):
    assert run(exported, tmp_path, [GOOD, GOOD], monkeypatch) == ()
    assert is_centred(tmp_path)
    pixels = np.asarray(Image.open(sorted((exported / "images").rglob("*.png"))[0]).convert("RGB"))
    (found,), (expected,) = (
        open_detector(f"openvino:{one}").predict([pixels]) for one in (tmp_path, exported / "float")
    )
    assert found.scores[0] == pytest.approx(expected.scores[0], abs=0.1)


@pytest.mark.slow
def test_parts_are_left_in_float_one_at_a_time_from_the_image_on(exported, tmp_path, monkeypatch):
    assert run(exported, tmp_path, [GOOD, BAD, GOOD], monkeypatch) == ("bottom_up/stem",)
    assert not is_centred(tmp_path)
    assert run(exported, tmp_path, [GOOD, BAD, BAD, GOOD], monkeypatch) == ("bottom_up/res2/res2.0",)
    assert is_centred(tmp_path)
    assert open_detector(f"openvino:{tmp_path}").info.about["left in float"] == "bottom_up/res2/res2.0"


@pytest.mark.slow
def test_what_costs_too_much_in_any_form_is_refused(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(int8_module, "_find_parts", lambda _: ("bottom_up/stem", "bottom_up/res2/res2.0"))
    with pytest.raises(ExportError, match=r"AP50 drops by 0\.1000, allowed are 0\.005"):
        run(exported, tmp_path, [GOOD, BAD, BAD, BAD], monkeypatch)


@pytest.mark.slow
def test_the_head_of_types_stays_in_float(tmp_path, monkeypatch):
    write_coco(build_dataset(tmp_path, n_fractured=1, n_healthy=1, seed=1), tmp_path / "val.json")
    names = ("MODEL.TYPE_HEAD.NAMES", "('spiral', 'oblique')")
    source = write_random_detector(tmp_path / "source", overrides=names)
    export_graph(str(source), "openvino", tmp_path / "float", sorted((tmp_path / "images").rglob("*.png"))[:1])
    run(tmp_path, tmp_path / "int8", [GOOD, GOOD], monkeypatch)

    operations = quiet_openvino().Core().read_model(tmp_path / "int8" / "model.xml").get_ordered_ops()
    products = {op.get_friendly_name(): op for op in operations if op.get_type_name() == "MatMul"}
    quantized = {name for name, op in products.items() if _kind_of_input(op) == "FakeQuantize"}
    assert any("box_head" in name for name in quantized)
    (head,) = (name for name in products if "type_predictor" in name)
    assert head not in quantized
    pixels = np.asarray(Image.open(next((tmp_path / "images").rglob("*.png"))).convert("RGB"))
    (found,) = open_detector(f"openvino:{tmp_path / 'int8'}").predict([pixels])
    assert found.types.shape == (len(found), 2)


def _kind_of_input(operation):
    return operation.input_value(0).get_node().get_type_name()
