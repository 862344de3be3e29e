"""Export of the baselines to OpenVINO, in float32 and INT8."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from fracture_det.baselines.baseline import Baseline, ShortestSide
from fracture_det.export.nncf import quiet_nncf, read_for_nncf
from fracture_det.inference.openvino import quiet_openvino
from fracture_det.structures.radiograph import Pixels


def export_baseline(baseline: Baseline, weights: str, path: Path) -> None:
    """Write a baseline's network for OpenVINO to `path`, an .xml, by way of ONNX; weights as in `open_baseline`."""
    network = baseline.load_network(weights)
    # Not square, so that height and width cannot be mistaken for each other.
    example = torch.from_numpy(baseline.preprocess(np.full((500, 400, 3), 128, np.uint8)))
    dynamic_axes = {"images": {2: "height", 3: "width"}} if isinstance(baseline.frame, ShortestSide) else None
    openvino = quiet_openvino()
    with TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all other shapes are traced as constants, which they are
        onnx_path = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (example,),
            str(onnx_path),
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            dynamic_axes=dynamic_axes,
        )
        _save_openvino(openvino.Core().read_model(onnx_path), path, half=False)


def quantize_baseline(baseline: Baseline, exported: Path, path: Path, images: Sequence[Pixels]) -> None:
    """Write the .xml of `export_baseline` to `path` with INT8 arithmetic, its ranges estimated on `images`."""
    nncf = quiet_nncf()
    quantized = nncf.quantize(
        read_for_nncf(exported),
        nncf.Dataset([baseline.preprocess(image) for image in images]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if baseline.transformer else None,
    )
    _save_openvino(quantized, path, half=True)


def _save_openvino(model: Any, path: Path, *, half: bool) -> None:
    """Write .bin, then .xml, so that an .xml is never without its .bin, even after a killed run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / path.name
        quiet_openvino().save_model(model, written, compress_to_fp16=half)
        written.with_suffix(".bin").replace(path.with_suffix(".bin"))
        written.replace(path)
