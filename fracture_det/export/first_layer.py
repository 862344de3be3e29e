"""Quantization of the first layer, which sees the radiograph itself: what it loses, no later layer can recover.

A radiograph already has 8 bits, so its grey values can be used unchanged, if the graph is written so that their grid is
that of the INT8 arithmetic. What remains is the rounding of the weights. Plain rounding changes the sum of each filter,
and so its response to flat areas, to black ones most; error diffusion (Floyd and Steinberg 1976) moves the error to the
highest spatial frequencies instead, of which radiographs have least.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.export.verify import ExportError
from fracture_det.inference.openvino import quiet_openvino

# NNCF gives the first layer's weights 7 bits: on processors that add pairs of 8-bit products in 16 bits, those of the
# brightest pixels and the largest weights would overflow (its OverflowFix.FIRST_LAYER).
WEIGHT_STEPS = 63.5  # from 0 to a filter's largest weight, which NNCF then rounds to 63
CENTRED_NODE = "fracture_det/centred"


def centre_first_layer(model: Any) -> None:
    """Rewrite an OpenVINO model so that its first layer takes grey values minus an integer, with weights of 7 bits.

    Mean and standard deviation of the colours move into weights and bias. The layer's padding, whose value was the mean
    of each colour, becomes one grey value for all colours.

    Raises ExportError when the model does not begin as the exports of this project do.
    """
    ops = quiet_openvino().opset13
    subtract, divide, conv = find_first_layer(model)
    mean, std = (np.broadcast_to(constant_input(node, 1).ravel(), 3).astype(float) for node in (subtract, divide))
    centre = float(round(mean.mean()))
    weights = constant_input(conv, 1) / std[:, None, None]
    # conv((x - mean) / std) = conv(x - centre) with these weights, plus a constant: that of the difference of the two.
    offset = (weights.sum((2, 3)) * (centre - mean)).sum(1).reshape(1, -1, 1, 1)
    moved = ops.add(conv, ops.constant(offset.astype(np.float32)))
    moved.set_friendly_name(f"{conv.get_friendly_name()}/centred")  # still in the same part of the network, see int8.py
    for user in conv.output(0).get_target_inputs():
        if user.get_node().get_friendly_name() != moved.get_friendly_name():
            user.replace_source_output(moved.output(0))
    conv.input(1).replace_source_output(ops.constant(round_with_error_diffusion(weights).astype(np.float32)).output(0))
    subtract.input(1).replace_source_output(ops.constant(np.full((1, 1, 1, 1), centre, np.float32)).output(0))
    subtract.set_friendly_name(CENTRED_NODE)
    for user in divide.output(0).get_target_inputs():
        user.replace_source_output(subtract.output(0))


def keep_grey_values(quantized: Any) -> None:
    """Set the input range of the first layer so that each of the 256 grey values is represented exactly, in place.

    quantized: a model of `centre_first_layer` after NNCF, which estimates the range from radiographs and so clips what
    is brighter than they are on average. Raises ExportError if NNCF did not quantize the first layer.
    """
    constant = quiet_openvino().opset13.constant
    for node in quantized.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and input_node(node, 0).get_friendly_name() == CENTRED_NODE:
            centre = float(constant_input(input_node(node, 0), 1).ravel()[0])
            for index, bound in enumerate((-centre, 255 - centre) * 2, start=1):
                node.input(index).replace_source_output(constant(np.float32(bound)).output(0))
            return
    raise ExportError("the first layer was not quantized")


def round_with_error_diffusion(weights: NDArray) -> NDArray:
    """Return weights (O, C, H, W) rounded to multiples of each filter's largest / WEIGHT_STEPS by error diffusion.

    The largest weight itself is left to NNCF. Each rounding error, that of the largest too, is carried to the next tap,
    row by row in alternating direction; a filter's sum changes by at most half a step, unless its last tap is its
    largest.
    """
    step = np.abs(weights).max((1, 2, 3)) / WEIGHT_STEPS
    scaled = weights / np.where(step > 0, step, 1)[:, None, None, None]
    rounded, carried = np.zeros_like(scaled), np.zeros(len(weights))
    for y in range(weights.shape[2]):
        for x in range(weights.shape[3])[:: -1 if y % 2 else 1]:
            for channel in range(weights.shape[1]):
                tap = scaled[:, channel, y, x]
                largest = np.abs(tap) > WEIGHT_STEPS - 1e-6
                wanted = tap + carried
                taken = np.trunc(np.where(largest, tap, wanted.round().clip(-WEIGHT_STEPS, WEIGHT_STEPS)))
                rounded[:, channel, y, x] = np.where(largest, tap, taken)
                carried = wanted - taken
    return rounded * step[:, None, None, None]


def find_first_layer(model: Any) -> tuple[Any, Any, Any]:
    """Return the subtraction of the mean, the division by the standard deviation, and the first convolution."""
    path = [model.get_parameters()[0]]
    while path[-1].get_type_name() != "Convolution":
        users = [user.get_node() for user in path[-1].output(0).get_target_inputs()]
        users = [user for user in users if user.get_type_name() != "ShapeOf"]  # uses the size, not the grey values
        if len(users) != 1:
            names = " > ".join(node.get_type_name() for node in path)
            raise ExportError(
                f"the graph begins {names}, with {len(users)} consumers; expected a single path to a convolution"
            )
        path.append(users[0])
    types = [node.get_type_name() for node in path]
    if types.count("Subtract") != 1 or types.count("Divide") != 1:
        raise ExportError(
            f"the graph begins {' > '.join(types)}; expected a mean to subtract and a deviation to divide by"
        )
    return path[types.index("Subtract")], path[types.index("Divide")], path[-1]


def input_node(node: Any, index: int) -> Any:
    """Return the node that input `index` of `node` comes from."""
    return node.input(index).get_source_output().get_node()


def constant_input(node: Any, index: int) -> NDArray:
    """Return the values of the constant at input `index` of `node`. Raises ExportError if it is no constant."""
    source = input_node(node, index)
    if source.get_type_name() != "Constant":
        raise ExportError(f"{node.get_friendly_name()}: expected a constant, got {source.get_type_name()}")
    return source.get_data()
