"""A classifier of types of fracture as files for OpenVINO."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.inference.type_classifier import FILES, TypeClassifier, TypeClassifierConfig
from fracture_det.modeling.type_network import TypeNetwork

# Half-precision weights move a probability by less than this.
MAX_DIFFERENCE = 0.01


class ClassifierExportError(RuntimeError):
    """The files answer otherwise than the network that they were made of."""


def export_type_classifier(network: TypeNetwork, config: TypeClassifierConfig, folder: Path) -> TypeClassifier:
    """Write classifier.json, model.xml, model.bin (weights in half precision), SHA256SUMS; return the classifier.

    Raises ClassifierExportError where it answers otherwise than the network on a picture of noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    openvino = quiet_openvino()
    random = np.random.default_rng(0)
    squares = [random.integers(0, 256, (1, 1, size, size), dtype=np.uint8) for size in config.sizes]
    examples = tuple(map(torch.from_numpy, squares))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracer, which OpenVINO calls
        expected = network(*examples)[0].numpy()
        model: Any = openvino.convert_model(network, example_input=examples)
    for port, square in zip(model.inputs, squares, strict=True):
        port.get_node().set_element_type(openvino.Type.u8)
        port.get_node().set_partial_shape(openvino.PartialShape(list(square.shape)))
    model.validate_nodes_and_infer_types()
    config.save(folder / FILES[0])
    openvino.save_model(model, folder / FILES[1], compress_to_fp16=True)
    write_checksums(*(folder / name for name in FILES))
    classifier = TypeClassifier(folder)
    answer = classifier.answer([square[0, 0] for square in squares])
    difference = float(np.abs(answer - expected).max())
    if difference > MAX_DIFFERENCE:
        raise ClassifierExportError(f"{folder}: a probability differs by {difference:.3f} from the network's")
    return classifier
