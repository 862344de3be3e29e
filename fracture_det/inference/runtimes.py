"""Exported detectors, without torch or Detectron2: OpenVINO and ONNX Runtime behind one protocol."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.detections import Detections
from fracture_det.images import Letterbox, Pixels
from fracture_det.inference.checksums import ChecksumError, checked_sha256
from fracture_det.inference.clock import stage
from fracture_det.inference.detector import DetectorError, card_beside
from fracture_det.inference.letterboxed import alike, on_image
from fracture_det.inference.processors import available_cpus

# Key of the JSON in a file's own metadata that makes the file enough to predict.
FACTS_KEY = "fracture_det"

# So many inputs are worked on side by side at most: each needs memory for its feature maps.
MOST_STREAMS = 4
# What OpenVINO made of a model is kept for so many pairs of the size of an input and the number side by side: the three
# sizes of a letterbox in large steps, for one radiograph and for several.
COMPILED_KEPT = 6

# Answers of one call of the graph: boxes (M, 4) XYXY letterbox px, scores (M,), classes (M,), image (M,) in the batch.
Answers = tuple[NDArray, NDArray, NDArray, NDArray]
# From batches (batch_size, H, W, 3) uint8 RGB to their answers, in order.
Engine = Callable[[Sequence[Pixels]], list[Answers]]


@dataclass(frozen=True)
class GraphFacts:
    """What a file says of the graph in it.

    title: what people call the model. class_names: in the order of the class indices.
    letterbox_px, letterbox_step: of the Letterbox that makes what the graph takes, uint8 RGB; it normalises by itself.
    batch_size: images per call. operating_score: from which a box counts as a finding.
    precision: of the arithmetic, "fp32" or "int8". source_sha256: of the weights that were exported.
    about: what else must be known to make it again, such as normalisation, NMS IoU and what was changed on the way.
    calibration: content of the source's calibration.json, for readers; it holds for the source's scores.
    """

    title: str
    class_names: tuple[str, ...]
    letterbox_px: int
    batch_size: int
    operating_score: float
    precision: str
    source_sha256: str
    about: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    letterbox_step: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        for name in ("letterbox_px", "batch_size", "letterbox_step"):
            value = getattr(self, name)
            if (not isinstance(value, int) or value < 1) and (name, value) != ("letterbox_step", None):
                raise ValueError(f"{name}: expected a whole number from 1 on, got {value!r}")
        if not 0 <= self.operating_score <= 1:
            raise ValueError(f"operating_score: expected 0..1, got {self.operating_score!r}")

    def to_json(self) -> str:
        """Return the text that stands in a file's metadata under FACTS_KEY."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> GraphFacts:
        """Read `text` of the file at `path`. Raises DetectorError naming file, field and value."""
        if not text:
            raise DetectorError(f"{path}: no {FACTS_KEY!r} in its metadata; export it with tools/export_model.py")
        try:
            content = json.loads(text)
            if missing := {"title", "class_names", "source_sha256"} - set(content):
                raise ValueError(f"{sorted(missing)} missing")
            return cls(**{name: content[name] for name in (each.name for each in fields(cls)) if name in content})
        except (ValueError, TypeError) as error:
            raise DetectorError(f"{path}, metadata {FACTS_KEY!r}: {error}") from error


class RuntimeDetector:
    """An exported graph as a Detector.

    name: title, precision and the first digits of the hash. sha256: of the file or files.
    about, card, operating_score, device: as of any detector.
    """

    def __init__(
        self,
        engine: Engine,
        facts: GraphFacts,
        *,
        runtime: str,
        sha256: str,
        card: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self._engine, self.facts, self.sha256, self.card = engine, facts, sha256, card
        self.letterbox = Letterbox(facts.letterbox_px, facts.letterbox_step)
        self.class_names = facts.class_names
        self.operating_score = facts.operating_score
        self.name = f"{facts.title} {runtime} {facts.precision} {sha256[:8]}"
        self.device = f"{device} ({runtime})"
        self.about = {
            "weights SHA-256": sha256,
            "exported from SHA-256": facts.source_sha256,
            "runtime": runtime,
            "precision": facts.precision,
            **facts.about,
        }

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB, in its pixels, down to the graph's own floor."""
        if not images:
            return []
        with stage("preprocess"):
            groups = alike(images, self.letterbox, most=self.facts.batch_size)
            batches = [self._batch([images[index] for index in group]) for group in groups]
        with stage("model"):
            answers = self._engine(batches)
        with stage("postprocess"):
            found = {
                index: on_image(*one, self.letterbox, images[index].shape[:2])
                for group, answer in zip(groups, answers, strict=True)
                for index, one in zip(group, _split(answer, len(group)), strict=True)
            }
            return [found[index] for index in range(len(images))]

    def _batch(self, images: Sequence[Pixels]) -> Pixels:
        """Return (batch_size, H, W, 3) of images of one letterbox size; what is missing is black."""
        size = self.letterbox.outer_size(images[0].shape[:2])
        batch = np.zeros((self.facts.batch_size, *size, 3), np.uint8)
        for out, image in zip(batch, images, strict=False):
            self.letterbox.apply_image(image, out=out)
        return batch


def _split(answers: Answers, count: int) -> list[tuple[NDArray, NDArray, NDArray]]:
    boxes, scores, classes, image = answers
    return [(boxes[image == n], scores[image == n], classes[image == n]) for n in range(count)]


def open_openvino(target: str) -> RuntimeDetector:
    """Open an .xml with its .bin, or a folder with a model.xml.

    Raises DetectorError when a file is missing, broken, or not an export of this project.
    """
    path = named(target, "model.xml")
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
    engine: Any = openvino_engine(model)  # four outputs, as every export of ours has
    runtime = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    return RuntimeDetector(engine, facts, runtime=runtime, sha256=sha256, card=card_beside(path))


def open_onnx(target: str) -> RuntimeDetector:
    """Open an .onnx file, or a folder with a model.onnx, with ONNX Runtime.

    Raises DetectorError when the file is missing, broken, or not an export of this project.
    """
    path = named(target, "model.onnx")
    sha256 = model_sha256(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # its own exceptions have no common public base
        raise DetectorError(f"{path}: ONNX Runtime cannot read it: {error}") from error
    facts = GraphFacts.from_json(session.get_modelmeta().custom_metadata_map.get(FACTS_KEY), path)
    name = session.get_inputs()[0].name

    def run(batches: Sequence[Pixels]) -> list[Answers]:
        return [tuple(session.run(None, {name: batch})) for batch in batches]

    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    device = session.get_providers()[0].removesuffix("ExecutionProvider").lower()
    return RuntimeDetector(run, facts, runtime=runtime, sha256=sha256, card=card_beside(path), device=device)


def quiet_openvino() -> Any:
    """Import OpenVINO so that it sends nothing: with openvino-telemetry installed, its import reports to a server."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino

    return openvino


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


def openvino_engine(
    model: Any, *, side_by_side: bool = True
) -> Callable[[Sequence[NDArray]], list[tuple[NDArray, ...]]]:
    """Return what runs an OpenVINO model (or the path of one) on inputs, to its outputs in their order.

    A model that takes inputs of many sizes is compiled for each that comes (a second or so; COMPILED_KEPT are kept):
    for a size that it knows OpenVINO plans ahead, and is up to half as fast again.

    side_by_side: inputs of one size share the processors between them, which is faster for most networks than to share
    each layer of one after the other, but needs more memory.
    """
    openvino = quiet_openvino()
    core = openvino.Core()
    model = core.read_model(model) if isinstance(model, Path) else model
    settings = {
        # Where a processor has bfloat16, OpenVINO would take it, and answers would hang on the machine.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": available_cpus(),
    }

    @lru_cache(maxsize=COMPILED_KEPT)
    def queue_for(shape: tuple[int, ...], streams: int) -> Any:
        sized = model.clone()
        sized.reshape(shape)
        compiled = core.compile_model(sized, "CPU", {**settings, "NUM_STREAMS": streams})
        return openvino.AsyncInferQueue(compiled, streams)

    def run(inputs: Sequence[NDArray]) -> list[tuple[NDArray, ...]]:
        answers: list[tuple[NDArray, ...]] = [()] * len(inputs)

        def keep(request: Any, index: int) -> None:
            answers[index] = tuple(np.array(tensor.data) for tensor in request.output_tensors)

        for shape in dict.fromkeys(one.shape for one in inputs):
            group = [index for index, one in enumerate(inputs) if one.shape == shape]
            queue = queue_for(shape, _streams(len(group)) if side_by_side else 1)
            queue.set_callback(keep)
            for index in group:
                queue.start_async([inputs[index]], index)
            queue.wait_all()
        return answers

    return run


def _streams(inputs: int) -> int:
    """Return how many of `inputs` to work on side by side: a power of two, so that there are few to be compiled for."""
    return 1 << (min(inputs, available_cpus(), MOST_STREAMS).bit_length() - 1)


def named(target: str, name: str) -> Path:
    """Return the file `target`, or `name` in the folder `target`. Raises DetectorError when there is none."""
    path = Path(target) / name if Path(target).is_dir() else Path(target)
    if not path.is_file():
        raise DetectorError(f"{path}: no such file; make one with tools/export_model.py")
    return path


def model_sha256(*paths: Path) -> str:
    """Return the SHA-256 of a model's files. Raises DetectorError when one is not as SHA256SUMS says."""
    try:
        return checked_sha256(*paths)
    except ChecksumError as error:
        raise DetectorError(str(error)) from error
