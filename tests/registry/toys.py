"""Detectors of one box as real exports for OpenVINO, and registries of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino.opset13 as ops
from openvino import Model, Type, save_model

from fracture_det.inference.base import CARD_FILE
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.exported import FACTS_KEY, GraphFacts
from fracture_det.inference.registry import open_detector
from fracture_det.registry.adding import Source, add_version
from fracture_det.registry.registry import Grounds, Registry
from fracture_det.registry.signatures import generate_key

SIZE = 32


def write_toy(
    folder: Path, factor: float, *, box: tuple[float, ...] = (2, 2, 20, 20), operating: float = 0.5, label: int = 0
) -> str:
    """Write an export that puts one box on every image, of a score of `factor` x its brightest pixel / 255.

    box: x0, y0, x1, y1 in a letterbox of 32 px. label: its class, of which there is one. Returns its URI.
    """
    folder.mkdir(parents=True)
    image = ops.parameter([1, SIZE, SIZE, 3], Type.u8, name="image")
    brightest = ops.reduce_max(ops.convert(image, "f32"), np.array([1, 2, 3]), keep_dims=False)
    score = ops.multiply(brightest, np.array([factor / 255], np.float32))
    outputs = [ops.constant(np.array([box], np.float32)), score]
    outputs += [ops.constant(np.array([label])), ops.constant(np.zeros(1, np.int64))]
    model = Model([ops.result(output) for output in outputs], [image], "toy")
    facts = GraphFacts("Toy", ("fracture",), SIZE, 1, operating, "fp32", "a" * 64)
    model.set_rt_info(facts.to_json(), [FACTS_KEY])
    save_model(model, folder / "model.xml", compress_to_fp16=False)
    write_checksums(folder / "model.xml", folder / "model.bin")
    (folder / CARD_FILE).write_text(f"# Toy of {factor:g}\n", encoding="utf-8")
    return f"openvino:{folder}"


def make_registry(folder: Path) -> Registry:
    """Return an empty registry with a key beside it."""
    registry = Registry.at(folder / "models")
    generate_key(registry.keys)
    return registry


def add_toy(registry: Registry, factor: float, **options: object) -> str:
    """Add a toy of this factor; return the version's name."""
    folder = registry.folder.parent / f"toy_{len(registry.names)}"
    version, is_new = add_version(registry, Source(write_toy(folder, factor, **options)))
    assert is_new
    return version.name


def serve(registry: Registry, name: str) -> None:
    """Serve a version without asking the gate."""
    registry.promote(name, lambda _served, _candidate: Grounds(without_gate="a test"))


def score_of(uri: str, brightness: int = 200) -> float:
    """Return what a detector gives to an image of this brightness."""
    [found] = open_detector(uri).predict([np.full((SIZE, SIZE, 3), brightness, np.uint8)])
    return float(found.scores[0])
