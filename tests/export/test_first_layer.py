"""The first layer in 8 bits: grey values as they are, and rounded weights whose sums are kept."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fracture_det.export.first_layer import (
    WEIGHT_STEPS,
    centre_first_layer,
    keep_grey_values,
    round_with_error_diffusion,
)
from fracture_det.export.int8 import _find_parts
from fracture_det.export.nncf import quiet_nncf, read_for_nncf
from fracture_det.export.verify import ExportError
from fracture_det.inference.openvino import quiet_openvino

openvino = quiet_openvino()
ops = openvino.opset13
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZE = 24


def weights_of(seed=0, filters=8):
    """Filters as a trained network has them: they answer to edges, not to flat areas."""
    drawn = np.random.default_rng(seed).normal(size=(filters, 3, 7, 7))
    return (drawn - drawn.mean((1, 2, 3), keepdims=True)).astype(np.float32)


def graph(weights, *, normalised=True):
    """Letterbox, mean and deviation, a convolution that halves, a bias, ReLU."""
    squares = ops.parameter([1, SIZE, SIZE, 3], np.uint8, "squares")
    planes = ops.convert(ops.transpose(squares, [0, 3, 1, 2]), "f32")
    if normalised:
        mean, std = (np.array(each, np.float32).reshape(1, 3, 1, 1) for each in (MEAN, STD))
        planes = ops.divide(ops.subtract(planes, mean), std)
    found = ops.convolution(planes, ops.constant(weights), [2, 2], [3, 3], [3, 3], [1, 1])
    found = ops.relu(ops.add(found, np.full((1, len(weights), 1, 1), 0.5, np.float32)))
    return openvino.Model([found], [squares])


def answer(model, squares):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([squares])[0]


def flat(grey):
    return np.full((1, SIZE, SIZE, 3), grey, np.uint8)


@given(seed=st.integers(0, 10_000), shape=st.sampled_from([(3, 3, 7, 7), (4, 3, 3, 3), (2, 1, 1, 1)]))
def test_rounded_weights_keep_their_largest_and_their_sums(seed, shape):
    weights = np.random.default_rng(seed).normal(size=shape)
    step = np.abs(weights).max((1, 2, 3)) / WEIGHT_STEPS
    whole = round_with_error_diffusion(weights) / step[:, None, None, None]
    np.testing.assert_allclose(np.abs(whole).max((1, 2, 3)), WEIGHT_STEPS)
    taken = np.where(np.abs(whole) > WEIGHT_STEPS - 1e-6, np.trunc(whole), whole)  # as NNCF rounds the largest
    np.testing.assert_allclose(taken, taken.round(), atol=1e-9)
    error = (taken - weights / step[:, None, None, None]).sum((1, 2, 3))
    assert np.abs(error).max() <= 1.5  # half a step, and one more where the last tap may not be moved
    assert np.abs(round_with_error_diffusion(weights) - weights).max() <= 2 * step.max()


def test_a_filter_of_nothing_stays_nothing():
    assert not round_with_error_diffusion(np.zeros((2, 3, 3, 3))).any()


@pytest.fixture(scope="module")
def quantized():
    """The graph in 8 bits, its ranges from dark images, before and after `keep_grey_values`: (clipping, exact)."""
    nncf = quiet_nncf()
    model = graph(weights_of())
    centre_first_layer(model)
    dark = [np.random.default_rng(seed).integers(0, 180, (1, SIZE, SIZE, 3), np.uint8) for seed in range(4)]
    clipping = nncf.quantize(model, nncf.Dataset(dark), preset=nncf.QuantizationPreset.MIXED, subset_size=4)
    exact = clipping.clone()
    keep_grey_values(exact)
    return clipping, exact


@pytest.mark.parametrize("grey", [0, 40, 255])
def test_flat_areas_respond_as_in_float(grey, quantized):
    weights = weights_of()
    expected = answer(graph(weights), flat(grey))
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # at the border the fill is another, see below
    shift = np.abs(answer(quantized[1], flat(grey)) - expected)[inner].max()
    # By rounding each weight by itself the same flat area moves by far more.
    step = np.abs(weights).max((1, 2, 3), keepdims=True) / WEIGHT_STEPS
    plain = np.abs(answer(graph((weights / step).round() * step), flat(grey)) - expected)[inner].max()
    assert shift < 0.51 * step.max() * 141 / min(STD)  # half a step of the filter's sum, times the grey value
    assert shift < plain / 5


def test_the_border_is_one_grey_for_all_colours():
    # 114, the mean of the three means, is what the border is filled with: a flat area of it has no border.
    centred = graph(weights_of())
    centre_first_layer(centred)
    found = answer(centred, flat(114))
    assert found.max() > 0.1
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :, 5:6, 5:6], found.shape), atol=1e-5)


def test_quantized_the_first_layer_sees_each_grey_value(quantized):
    clipping, exact = quantized
    first = next(node for node in exact.get_ordered_ops() if node.get_type_name() == "FakeQuantize")
    bounds = [float(each.get_source_output().get_node().get_data()) for each in first.inputs()[1:]]
    assert bounds == [-114.0, 141.0, -114.0, 141.0]
    assert np.abs(answer(clipping, flat(255)) - answer(exact, flat(255))).max() > 0.05
    # NNCF takes the weights on their grid: else all answers would shrink by .8 %, here by up to .4.
    centred = graph(weights_of())
    centre_first_layer(centred)
    noise = np.random.default_rng(9).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    np.testing.assert_allclose(answer(exact, noise), answer(centred, noise), atol=0.15)


def test_a_graph_that_begins_otherwise_is_refused():
    with pytest.raises(ExportError, match="begins Parameter > Transpose > Convert > Convolution; expected a mean"):
        centre_first_layer(graph(weights_of(), normalised=False))
    with pytest.raises(ExportError, match="the first layer was not quantized"):
        keep_grey_values(graph(weights_of()))


def test_depthwise_weights_are_constants_before_they_are_quantized(tmp_path):
    network = torch.nn.Conv2d(4, 4, 3, groups=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(network, (torch.zeros(1, 4, 8, 8),), str(tmp_path / "d.onnx"), dynamo=False)
    openvino.save_model(openvino.Core().read_model(tmp_path / "d.onnx"), tmp_path / "d.xml", compress_to_fp16=False)
    kinds = [
        next(node for node in model.get_ordered_ops() if node.get_type_name() == "GroupConvolution")
        .input(1)
        .get_source_output()
        .get_node()
        .get_type_name()
        for model in (openvino.Core().read_model(tmp_path / "d.xml"), read_for_nncf(tmp_path / "d.xml"))
    ]
    assert kinds == ["Reshape", "Constant"]


def test_parts_stand_in_the_order_of_the_network():
    # The shorter branch is listed first by OpenVINO, whose order is one of many.
    squares = ops.parameter([1, 3, 8, 8], np.float32, "squares")
    node = squares
    for name in ("bottom_up/stem/conv", "bottom_up/res2/conv", "bottom_up/res3/conv"):
        node = ops.relu(node)
        node.set_friendly_name(f"/backbone/{name}/Conv")
    lateral = ops.relu(node)
    lateral.set_friendly_name("/backbone/fpn_lateral/Conv")
    head = ops.relu(lateral)
    head.set_friendly_name("/rpn_head/conv/Conv")
    model = openvino.Model([head, ops.relu(node)], [squares])
    assert _find_parts(model) == ("bottom_up/stem", "bottom_up/res2", "bottom_up/res3", "backbone", "rpn_head/conv")
