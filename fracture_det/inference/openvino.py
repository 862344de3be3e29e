"""Exported detectors on OpenVINO, without torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.inference.base import DetectorError, card_beside
from fracture_det.inference.exported import FACTS_KEY, ExportedDetector, GraphFacts, model_file, model_sha256
from fracture_det.structures.processors import available_cpus

# The most inputs that are worked on side by side: each needs memory for its feature maps.
MOST_STREAMS = 4
# What OpenVINO made of a model is kept for so many pairs of the size of an input and the number side by side: the three
# sizes of a letterbox in large steps, for one radiograph and for several.
COMPILED_KEPT = 6


def open_openvino(target: str) -> ExportedDetector:
    """Open an .xml with its .bin, or a folder with a model.xml.

    Raises DetectorError when a file is missing, broken, or not an export of this project.
    """
    path = model_file(target, "model.xml")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise DetectorError(f"{path}: no {weights.name} beside it; both files are the model")
    sha256 = model_sha256(path, weights)
    openvino = quiet_openvino()
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise DetectorError(f"{path}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from error
    text = model.get_rt_info([FACTS_KEY]).astype(str) if model.has_rt_info([FACTS_KEY]) else None
    facts = GraphFacts.from_json(text, path)
    engine: Any = openvino_engine(model)  # four or five outputs, as every export of ours has
    runtime = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    return ExportedDetector(engine, facts, runtime=runtime, sha256=sha256, card=card_beside(path))


def quiet_openvino() -> Any:
    """Import OpenVINO so that it sends nothing: with openvino-telemetry installed, its import reports to a server."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino

    return openvino


def openvino_engine(
    model: Any, *, side_by_side: bool = True
) -> Callable[[Sequence[NDArray[Any]]], list[tuple[NDArray[Any], ...]]]:
    """Return what runs an OpenVINO model (or the path of one) on inputs, to its outputs in their order.

    A model that takes inputs of many sizes is compiled for each that comes (a second or so; COMPILED_KEPT are kept):
    for a known size OpenVINO plans ahead and is up to 50 % faster.

    side_by_side: inputs of one size share the processors between them, which is faster for most networks than to share
    each layer of one after the other, but needs more memory.
    """
    openvino = quiet_openvino()
    core = openvino.Core()
    model = core.read_model(model) if isinstance(model, Path) else model
    settings = {
        # Where a processor has bfloat16, OpenVINO would use it, and predictions would depend on the machine.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": available_cpus(),
    }

    @lru_cache(maxsize=COMPILED_KEPT)
    def queue_for(shape: tuple[int, ...], streams: int) -> Any:
        sized = model.clone()
        sized.reshape(shape)
        compiled = core.compile_model(sized, "CPU", {**settings, "NUM_STREAMS": streams})
        return openvino.AsyncInferQueue(compiled, streams)

    def run(inputs: Sequence[NDArray[Any]]) -> list[tuple[NDArray[Any], ...]]:
        outputs: list[tuple[NDArray[Any], ...]] = [()] * len(inputs)

        def keep(request: Any, index: int) -> None:
            outputs[index] = tuple(np.array(tensor.data) for tensor in request.output_tensors)

        for shape in dict.fromkeys(array.shape for array in inputs):
            group = [index for index, array in enumerate(inputs) if array.shape == shape]
            queue = queue_for(shape, _streams(len(group)) if side_by_side else 1)
            queue.set_callback(keep)
            for index in group:
                queue.start_async([inputs[index]], index)
            queue.wait_all()
        return outputs

    return run


def _streams(inputs: int) -> int:
    """Return how many of `inputs` to work on side by side: a power of two, so that there are few to be compiled for."""
    return 1 << (min(inputs, available_cpus(), MOST_STREAMS).bit_length() - 1)
