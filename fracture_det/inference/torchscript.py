"""TorchScript exports: needs torch, not Detectron2, and runs on a GPU where there is one."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  # registers roi_align and nms, which the graph calls

from fracture_det.inference.base import DetectorError, card_beside
from fracture_det.inference.exported import (
    FACTS_KEY,
    ExportedDetector,
    GraphFacts,
    GraphOutputs,
    model_file,
    model_sha256,
)
from fracture_det.structures.radiograph import Pixels

log = logging.getLogger(__name__)


def open_torchscript(target: str) -> ExportedDetector:
    """Open a .pt of tools/export_model.py, or a folder with a model.pt.

    Raises DetectorError when the file is missing, broken, or not an export of this project.
    """
    path = model_file(target, "model.pt")
    sha256 = model_sha256(path)
    device = _device()
    extra = {FACTS_KEY: ""}
    load: Any = torch.jit.load  # it has no types
    try:
        with warnings.catch_warnings():  # torch announces that TorchScript is deprecated
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            graph = load(str(path), map_location=device, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise DetectorError(f"{path}: torch cannot read it: {str(error).strip().splitlines()[0]}") from error
    text = extra[FACTS_KEY]
    facts = GraphFacts.from_json(text.decode() if isinstance(text, bytes) else text, path)

    @torch.no_grad()
    def run(batches: Sequence[Pixels]) -> list[GraphOutputs]:
        return [_arrays(graph(torch.from_numpy(batch).to(device))) for batch in batches]

    name = torch.cuda.get_device_name(device) if device == "cuda" else device
    log.info("opened %s on %s", path, name)
    runtime = f"TorchScript {torch.__version__.partition('+')[0]}"
    return ExportedDetector(run, facts, runtime=runtime, sha256=sha256, card=card_beside(path), device=name)


def _device() -> str:
    """Return "cuda" where there is a GPU, else "cpu", with a warning where the environment names a GPU all the same."""
    if torch.cuda.is_available():
        return "cuda"
    if (asked := os.environ.get("CUDA_VISIBLE_DEVICES", "")) not in ("", "-1"):
        log.warning("CUDA_VISIBLE_DEVICES=%s, but PyTorch finds no GPU; the model runs on the CPU", asked)
    return "cpu"


def _arrays(outputs: Sequence[torch.Tensor]) -> GraphOutputs:
    return tuple(np.asarray(output.cpu()) for output in outputs)
