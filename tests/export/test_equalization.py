"""The channels of the first layer on one scale: the same answers in float, nearer ones in 8 bits."""

import numpy as np
import pytest

from fracture_det.export.equalization import equalize_first_layer
from fracture_det.export.nncf import quiet_nncf
from fracture_det.inference.openvino import quiet_openvino

openvino = quiet_openvino()
ops = openvino.opset13
SIZE, CHANNELS = 32, 8
# Of the first layer's channels; one of them is never seen.
SCALES = np.array([100, 30, 10, 3, 1, 0.3, 0.1, 0.0])


def graph(*, activation="relu"):
    """A first layer whose channels differ a thousandfold, pooling, and two convolutions that make up for it."""
    drawn = np.random.default_rng(0)
    images = ops.parameter([1, SIZE, SIZE, 3], np.uint8, "images")
    planes = ops.divide(
        ops.subtract(ops.convert(ops.transpose(images, [0, 3, 1, 2]), "f32"), np.float32(120)), np.float32(60)
    )
    weights = drawn.normal(size=(CHANNELS, 3, 3, 3)) * SCALES[:, None, None, None]
    bias = (SCALES * 0.1).reshape(1, -1, 1, 1)
    found = convolve(planes, weights, 2)
    found = ops.add(found, bias.astype(np.float32))
    found = ops.relu(found) if activation == "relu" else ops.clamp(found, 0, 6)
    found = ops.max_pool(found, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3]).output(0)
    undo = 1 / np.where(SCALES, SCALES, 1)[None, :, None, None]
    one, other = (convolve(found, drawn.normal(size=(4, CHANNELS, 1, 1)) * undo, 1) for _ in range(2))
    return openvino.Model([one, other], [images])


def convolve(node, weights, stride):
    weights = ops.constant(weights.astype(np.float32))
    return ops.convolution(node, weights, [stride] * 2, [1, 1], [1, 1], [1, 1])


@pytest.fixture(scope="module")
def inputs():
    return [np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for seed in range(1, 6)]


def answers(model, inputs):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.stack([np.concatenate([compiled([one[None]])[index] for index in (0, 1)]) for one in inputs])


def weights_of(model):
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    return [node.input(1).get_source_output().get_node().get_data() for node in nodes]


def test_in_float_nothing_changes_but_the_scales(inputs):
    model = graph()
    equalize_first_layer(model, inputs)
    np.testing.assert_allclose(answers(model, inputs), answers(graph(), inputs), atol=1e-3)
    first = np.abs(weights_of(model)[0]).max((1, 2, 3))
    assert first[-1] == 0
    assert first[:-1].max() / first[:-1].min() < 100  # the square root of a thousand, and what the draw adds


def test_in_8_bits_outputs_come_nearer(inputs):
    nncf = quiet_nncf()
    expected = answers(graph(), inputs)
    errors = []
    for equalized in (False, True):
        model = graph()
        if equalized:
            equalize_first_layer(model, inputs)
        data = nncf.Dataset(inputs, lambda one: one[None])
        model = nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(inputs))
        errors.append(np.abs(answers(model, inputs) - expected).mean())
    assert errors[1] < errors[0] / 3


def test_a_bounded_activation_is_left_alone(inputs):
    # min(6, x) of a scaled x is not the scaled min(6, x).
    model = graph(activation="clamp")
    before = [weights.copy() for weights in weights_of(model)]
    equalize_first_layer(model, inputs)
    for one, other in zip(weights_of(model), before, strict=True):
        np.testing.assert_array_equal(one, other)
