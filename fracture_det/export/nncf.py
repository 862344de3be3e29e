"""NNCF, the quantizer of OpenVINO, imported without telemetry, and models in the form that it handles."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fracture_det.inference.openvino import quiet_openvino


def quiet_nncf() -> Any:
    """Return the module nncf, imported so that it sends no telemetry and logs only warnings."""
    quiet_openvino()
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf


def read_for_nncf(path: Path) -> Any:
    """Return the OpenVINO model of the .xml, ready to be quantized.

    Weights that are reshaped within the graph, as those of depthwise convolutions from ONNX, are folded into constants
    first: NNCF would take the wrong axis for their channels, and OpenVINO compute them in float.
    """
    model = quiet_openvino().Core().read_model(path)
    from openvino.passes import ConstantFolding, Manager  # after quiet_openvino

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    return model
