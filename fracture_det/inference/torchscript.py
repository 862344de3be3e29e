"""TorchScript exports: needs torch, not Detectron2, and runs on a GPU where there is one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torchvision  # noqa: F401  # registers roi_align and nms, which the graph calls

from fracture_det.inference.base import DetectorError, card_beside
from fracture_det.inference.exported import FACTS_KEY, Answers, ExportedDetector, GraphFacts, model_sha256, named
from fracture_det.structures.radiograph import Pixels


def open_torchscript(target: str) -> ExportedDetector:
    """Open a .pt of tools/export_model.py, or a folder with a model.pt.

    Raises DetectorError when the file is missing, broken, or not an export of this project.
    """
    path = named(target, "model.pt")
    sha256 = model_sha256(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extra = {FACTS_KEY: ""}
    try:
        with warnings.catch_warnings():  # torch announces that TorchScript will not grow any more
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            graph = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise DetectorError(f"{path}: torch cannot read it: {str(error).strip().splitlines()[0]}") from error
    text = extra[FACTS_KEY]
    facts = GraphFacts.from_json(text.decode() if isinstance(text, bytes) else text, path)

    @torch.no_grad()
    def run(batches: Sequence[Pixels]) -> list[Answers]:
        return [_arrays(graph(torch.from_numpy(batch).to(device))) for batch in batches]

    runtime = f"TorchScript {torch.__version__.partition('+')[0]}"
    return ExportedDetector(run, facts, runtime=runtime, sha256=sha256, card=card_beside(path), device=device)


def _arrays(outputs: Sequence[torch.Tensor]) -> Answers:
    boxes, scores, classes, image = (np.asarray(output.cpu()) for output in outputs)
    return boxes, scores, classes, image
