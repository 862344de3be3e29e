"""Exported detectors on ONNX Runtime, without torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fracture_det.inference.base import DetectorError, card_beside
from fracture_det.inference.exported import (
    FACTS_KEY,
    ExportedDetector,
    GraphFacts,
    GraphOutputs,
    model_file,
    model_sha256,
)
from fracture_det.structures.processors import available_cpus
from fracture_det.structures.radiograph import Pixels

log = logging.getLogger(__name__)


def open_onnx(target: str) -> ExportedDetector:
    """Open an .onnx file, or a folder with a model.onnx, with ONNX Runtime.

    Raises DetectorError when the file is missing, broken, or not an export of this project.
    """
    path = model_file(target, "model.onnx")
    sha256 = model_sha256(path)
    import onnxruntime

    available = onnxruntime.get_available_providers()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=available)
    except Exception as error:  # its own exceptions have no common public base
        raise DetectorError(f"{path}: ONNX Runtime cannot read it: {error}") from error
    facts = GraphFacts.from_json(session.get_modelmeta().custom_metadata_map.get(FACTS_KEY), path)
    name = session.get_inputs()[0].name

    def run(batches: Sequence[Pixels]) -> list[GraphOutputs]:
        return [tuple(session.run(None, {name: batch})) for batch in batches]

    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    provider = session.get_providers()[0]
    if provider != available[0]:  # it falls back silently when a driver or a library is missing
        log.warning("%s: ONNX Runtime was built for %s, but runs on %s", path, available[0], provider)
    log.info("opened %s on %s", path, provider)
    device = provider.removesuffix("ExecutionProvider").lower()
    return ExportedDetector(run, facts, runtime=runtime, sha256=sha256, card=card_beside(path), device=device)
