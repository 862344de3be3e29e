"""NNCF, which quantizes, imported so that it stays quiet and gets the model that it understands."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fracture_det.inference.openvino import quiet_openvino


def quiet_nncf() -> Any:
    """Import NNCF, which quantizes, so that it sends nothing either and prints warnings alone."""
    quiet_openvino()
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf


def read_for_nncf(path: Path) -> Any:
    """Return the OpenVINO model of the .xml, ready to be quantized.

    NNCF mistakes the channels of weights that are reshaped within the graph, as those of depthwise convolutions from
    ONNX are, and OpenVINO then computes them in float; folded into constants they are taken rightly.
    """
    model = quiet_openvino().Core().read_model(path)
    from openvino.passes import ConstantFolding, Manager  # only now: see quiet_openvino

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    return model
