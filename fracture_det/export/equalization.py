"""Cross-layer equalization of a network's first layer, before its channels share one scale of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.export.first_layer import constant_input, find_first_layer
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.structures.radiograph import Pixels

# Operations that pass a positive factor per channel on; the constant of an Add is scaled with it.
_SCALE_EQUIVARIANT = ("Add", "Relu", "MaxPool")


def equalize_first_layer(model: Any, inputs: Sequence[Pixels]) -> None:
    """Divide each channel of the first convolution by a factor and multiply it back in the convolutions that follow.

    The OpenVINO `model` is changed in place and computes the same as before. All channels of a feature map share one
    scale of 8 bits, which leaves few steps to channels with small values. The factor is the square root of the
    channel's maximum on `inputs` (letterboxed radiographs) over that of the weights that consume it (Nagel et al. 2019,
    Data-free quantization through weight equalization and bias correction; activations as in Xiao et al. 2023,
    SmoothQuant).

    A model whose first convolution is not followed by ReLU, pooling or not, and convolutions is left unchanged.
    """
    conv = find_first_layer(model)[-1]
    chain = _chain_to_consumers(conv)
    consumers = [user.get_node() for user in chain[-1].output(0).get_target_inputs()]
    if any(consumer.get_type_name() != "Convolution" for consumer in consumers):
        return
    factors = _factors(_channel_maxima(model, chain[-1], inputs), consumers)
    for node in [conv, *(node for node in chain if node.get_type_name() == "Add")]:
        _multiply(node, 1 / factors, axis=0 if node is conv else 1)
    for consumer in consumers:
        _multiply(consumer, factors, axis=1)


def _chain_to_consumers(conv: Any) -> list[Any]:
    """Return `conv` and the operations of _SCALE_EQUIVARIANT after it, up to where its output branches or they end."""
    path = [conv]
    while len(users := path[-1].output(0).get_target_inputs()) == 1:
        user = next(iter(users)).get_node()
        if user.get_type_name() not in _SCALE_EQUIVARIANT:
            break
        path.append(user)
    return path


def _channel_maxima(model: Any, node: Any, inputs: Sequence[Pixels]) -> NDArray:
    """Return the maximum of each channel (C,) of the output of `node`, averaged over `inputs`."""
    openvino = quiet_openvino()
    truncated = openvino.Model([node.output(0)], model.get_parameters())
    compiled = openvino.Core().compile_model(truncated, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.mean([compiled(image[None])[0].max((0, 2, 3)) for image in inputs], axis=0)


def _factors(maxima: NDArray, consumers: Sequence[Any]) -> NDArray:
    """Return a factor per channel (C,); 1 for a channel that is always 0, or that no consumer uses."""
    weights = [np.abs(constant_input(consumer, 1)) for consumer in consumers]
    # Each filter has its own scale, so a weight counts relative to the largest of its filter.
    tiny = np.finfo(np.float32).tiny
    relative = [weight / np.maximum(weight.max((1, 2, 3), keepdims=True), tiny) for weight in weights]
    largest = np.max([weight.max((0, 2, 3)) for weight in relative], axis=0)
    used = (maxima > 0) & (largest > 0)
    return np.sqrt(np.where(used, maxima, 1) / np.where(used, largest, 1))


def _multiply(node: Any, factors: NDArray, *, axis: int) -> None:
    """Multiply the constant input of `node`, whose channels are on `axis` of 4, by factors (C,)."""
    values = constant_input(node, 1)
    shape = [1] * 4
    shape[axis] = -1
    scaled = (values * factors.reshape(shape)).astype(np.float32)
    node.input(1).replace_source_output(quiet_openvino().opset13.constant(scaled).output(0))
