"""The channels that leave a network's first layer on one scale, before they are given one set of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.export.first_layer import beginning, values_of
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.structures.radiograph import Pixels

# What passes a positive factor on as it is.
_PASSING = ("Add", "Relu", "MaxPool")


def equalize_first_layer(model: Any, inputs: Sequence[Pixels]) -> None:
    """Divide each channel of the first convolution by a factor by which the convolutions after it multiply it again.

    The OpenVINO `model` computes the same as before. All channels of a feature map share one scale of 8 bits, in which
    those that stay small would have few steps left; their factor is the square root of the channel's range on `inputs`
    (letterboxed radiographs) over that of the weights that read it (Nagel et al. 2019, Data-free quantization through
    weight equalization and bias correction; ranges of activations as in Xiao et al. 2023, SmoothQuant).

    A model whose first convolution is not followed by ReLU, perhaps pooling, and convolutions stays as it is.
    """
    conv = beginning(model)[-1]
    after = _until_convolutions(conv)
    readers = [user.get_node() for user in after[-1].output(0).get_target_inputs()]
    if any(reader.get_type_name() != "Convolution" for reader in readers):
        return
    factors = _factors(_ranges(model, after[-1], inputs), readers)
    for node in [conv, *(node for node in after if node.get_type_name() == "Add")]:
        _multiply(node, 1 / factors, axis=0 if node is conv else 1)
    for reader in readers:
        _multiply(reader, factors, axis=1)


def _until_convolutions(conv: Any) -> list[Any]:
    """Return `conv` and what passes its channels on, each used by the next alone."""
    path = [conv]
    while len(users := path[-1].output(0).get_target_inputs()) == 1:
        user = next(iter(users)).get_node()
        if user.get_type_name() not in _PASSING:
            break
        path.append(user)
    return path


def _ranges(model: Any, node: Any, inputs: Sequence[Pixels]) -> NDArray:
    """Return the largest value of each channel (C,) of what `node` gives, as the mean over `inputs`."""
    openvino = quiet_openvino()
    until = openvino.Model([node.output(0)], model.get_parameters())
    compiled = openvino.Core().compile_model(until, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.mean([compiled(one[None])[0].max((0, 2, 3)) for one in inputs], axis=0)


def _factors(ranges: NDArray, readers: Sequence[Any]) -> NDArray:
    """Return a factor per channel (C,); 1 for one that nothing is ever seen in, or that nothing reads."""
    weights = [np.abs(values_of(reader, 1)) for reader in readers]
    # Each filter has a scale of its own: what counts is how large a weight is among those of its filter.
    shares = [each / np.maximum(each.max((1, 2, 3), keepdims=True), np.finfo(np.float32).tiny) for each in weights]
    largest = np.max([share.max((0, 2, 3)) for share in shares], axis=0)
    used = (ranges > 0) & (largest > 0)
    return np.sqrt(np.where(used, ranges, 1) / np.where(used, largest, 1))


def _multiply(node: Any, factors: NDArray, *, axis: int) -> None:
    """Multiply the constant that `node` takes, whose channels lie on `axis` of 4."""
    values = values_of(node, 1)
    shape = [1] * 4
    shape[axis] = -1
    scaled = (values * factors.reshape(shape)).astype(np.float32)
    node.input(1).replace_source_output(quiet_openvino().opset13.constant(scaled).output(0))
