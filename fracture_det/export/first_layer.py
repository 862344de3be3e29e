"""The first layer in 8 bits: it sees the radiograph itself, and what it loses no later layer can find again.

A radiograph has 8 bits already, so its grey values can be taken as they are, if the graph is written so that their
grid is that of the arithmetic. What is left is the rounding of the weights. Plain rounding disturbs the sum of each
filter, by which flat areas answer, black ones the strongest; error diffusion (Floyd and Steinberg 1976) moves the error
to the finest patterns instead, of which radiographs have least.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.export.verify import ExportError
from fracture_det.inference.openvino import quiet_openvino

# NNCF gives the first layer 7 bits: where a processor adds pairs of products in 16, bytes of the brightest pixels times
# bytes of the largest weights would not fit (its OverflowFix.FIRST_LAYER).
STEPS = 63.5  # from 0 to a filter's largest weight, which it then rounds to 63
_CENTRED = "fracture_det/centred"


def centre_first_layer(model: Any) -> None:
    """Rewrite an OpenVINO model so that its first layer takes grey values less a whole number, on weights in 7 bits.

    Mean and standard deviation of the colours move into weights and bias. The layer's border, which was filled with the
    mean of each colour, is then filled with one grey for all of them.

    Raises ExportError when the model does not begin as exports of this project do.
    """
    ops = quiet_openvino().opset13
    subtract, divide, conv = beginning(model)
    mean, std = (np.broadcast_to(values_of(node, 1).ravel(), 3).astype(float) for node in (subtract, divide))
    centre = float(round(mean.mean()))
    weights = values_of(conv, 1) / std[:, None, None]
    # conv((x - mean) / std) = conv(x - centre) with these weights, and what the difference of both gives everywhere.
    offset = (weights.sum((2, 3)) * (centre - mean)).sum(1).reshape(1, -1, 1, 1)
    moved = ops.add(conv, ops.constant(offset.astype(np.float32)))
    moved.set_friendly_name(f"{conv.get_friendly_name()}/centred")  # the same part of the network
    for user in conv.output(0).get_target_inputs():
        if user.get_node().get_friendly_name() != moved.get_friendly_name():
            user.replace_source_output(moved.output(0))
    conv.input(1).replace_source_output(ops.constant(diffused(weights).astype(np.float32)).output(0))
    subtract.input(1).replace_source_output(ops.constant(np.full((1, 1, 1, 1), centre, np.float32)).output(0))
    subtract.set_friendly_name(_CENTRED)
    for user in divide.output(0).get_target_inputs():
        user.replace_source_output(subtract.output(0))


def keep_grey_values(quantized: Any) -> None:
    """Give the radiograph 8 bits in which each grey value is itself, in a model of `centre_first_layer` after NNCF.

    NNCF takes the range from radiographs and so clips what is brighter than they are on average.
    """
    constant = quiet_openvino().opset13.constant
    for node in quantized.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and source_of(node, 0).get_friendly_name() == _CENTRED:
            centre = float(values_of(source_of(node, 0), 1).ravel()[0])
            for index, bound in enumerate((-centre, 255 - centre) * 2, start=1):
                node.input(index).replace_source_output(constant(np.float32(bound)).output(0))
            return
    raise ExportError("the first layer was not quantized")


def diffused(weights: NDArray) -> NDArray:
    """Return weights (O, C, H, W) rounded to steps of each filter's largest / STEPS, the largest itself left to NNCF.

    Each rounding error, that of the largest too, is carried on to the next tap, row after row to and fro; a filter's
    sum moves by half a step at most, but where its last tap is its largest.
    """
    step = np.abs(weights).max((1, 2, 3)) / STEPS
    scaled = weights / np.where(step > 0, step, 1)[:, None, None, None]
    rounded, carried = np.zeros_like(scaled), np.zeros(len(weights))
    for y in range(weights.shape[2]):
        for x in range(weights.shape[3])[:: -1 if y % 2 else 1]:
            for channel in range(weights.shape[1]):
                tap = scaled[:, channel, y, x]
                largest = np.abs(tap) > STEPS - 1e-6
                wanted = tap + carried
                taken = np.trunc(np.where(largest, tap, wanted.round().clip(-STEPS, STEPS)))
                rounded[:, channel, y, x] = np.where(largest, tap, taken)
                carried = wanted - taken
    return rounded * step[:, None, None, None]


def beginning(model: Any) -> tuple[Any, Any, Any]:
    """Return the subtraction of the mean, the division by the standard deviation, and the first convolution."""
    path = [model.get_parameters()[0]]
    while path[-1].get_type_name() != "Convolution":
        users = [user.get_node() for user in path[-1].output(0).get_target_inputs()]
        users = [user for user in users if user.get_type_name() != "ShapeOf"]  # of the size alone, not of grey values
        if len(users) != 1:
            names = " > ".join(node.get_type_name() for node in path)
            raise ExportError(
                f"the graph begins {names}, which {len(users)} others use; expected one way to a convolution"
            )
        path.append(users[0])
    kinds = [node.get_type_name() for node in path]
    if kinds.count("Subtract") != 1 or kinds.count("Divide") != 1:
        raise ExportError(
            f"the graph begins {' > '.join(kinds)}; expected a mean to subtract and a deviation to divide by"
        )
    return path[kinds.index("Subtract")], path[kinds.index("Divide")], path[-1]


def source_of(node: Any, index: int) -> Any:
    return node.input(index).get_source_output().get_node()


def values_of(node: Any, index: int) -> NDArray:
    source = source_of(node, index)
    if source.get_type_name() != "Constant":
        raise ExportError(f"{node.get_friendly_name()}: expected a constant, got {source.get_type_name()}")
    return source.get_data()
