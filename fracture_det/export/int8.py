"""INT8: an OpenVINO export quantized by NNCF on real radiographs; parts that would lose accuracy stay in float."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fracture_det.data.records import Dataset
from fracture_det.export.equalization import equalize_first_layer
from fracture_det.export.first_layer import centre_first_layer, keep_grey_values
from fracture_det.export.graph import FORMATS, save_openvino
from fracture_det.export.nncf import quiet_nncf, read_for_nncf
from fracture_det.export.verify import MAX_AP50_DROP_INT8, Accuracy, ExportError, check_drop, measure_accuracy
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.exported import ExportedDetector
from fracture_det.inference.openvino import open_openvino
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.radiograph import Pixels, read_radiograph

# The parts of the graph that may be quantized, by the names of Detectron2's modules; they hold nearly all arithmetic.
# What follows them (box decoding, NMS, the layers that output box deltas and scores) stays in float: 8 bits for 800 px
# would move boxes by pixels.
PART = re.compile(
    r"/(bottom_up/(?:network/)?[^/]+(?:/[^/]+\.\d+(?=/))?|backbone(?=/(?!bottom_up))|rpn_head/conv|box_head)"
)
CALIBRATION_IMAGES = 60


class _QuantizableModel:
    """An OpenVINO model that can be quantized repeatedly, with different parts left in float.

    parts: names of what may be quantized, from the image to the heads.
    """

    def __init__(self, source: ExportedDetector, path: Path, inputs: Sequence[Pixels]) -> None:
        self.facts, self._inputs = source.facts, inputs
        self._model = read_for_nncf(path)
        self.parts = _find_parts(self._model)
        if not self.parts:
            raise ExportError(f"{path}: nothing to quantize; no part has a name as Detectron2's backbones give them")
        equalize_first_layer(self._model, inputs)

    def write(self, out: Path, float_parts: Sequence[str]) -> ExportedDetector:
        """Write the model with INT8 in all parts but `float_parts` to the folder `out`; return it, opened."""
        nncf = quiet_nncf()
        model = self._model.clone()
        if first_is_int8 := self.parts[0] not in float_parts:
            centre_first_layer(model)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(self._inputs, lambda image: np.repeat(image[None], self.facts.batch_size, axis=0)),
            preset=nncf.QuantizationPreset.MIXED,  # feature maps after anything but a ReLU are not symmetric
            subset_size=len(self._inputs),
            ignored_scope=nncf.IgnoredScope(patterns=[self._all_but_int8_parts(float_parts)], validate=False),
        )
        if first_is_int8:
            keep_grey_values(quantized)
        about = {**self.facts.about, "left in float": ", ".join(float_parts) or "nothing but heads and geometry"}
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / name for name in FORMATS["openvino"]]
        save_openvino(quantized, replace(self.facts, precision="int8", about=about), paths[0], half=True)
        write_checksums(*paths)
        return open_openvino(str(out))

    def _all_but_int8_parts(self, float_parts: Sequence[str]) -> str:
        """Return a pattern for the names of all nodes that must stay in float."""
        quantized = [part for part in self.parts if part not in float_parts]
        inside = "|".join(rf"/{re.escape(part)}(?:/|_|$)" for part in quantized if part != "backbone")
        pyramid = [r"/backbone/(?!bottom_up)"] if "backbone" in quantized else []
        return f"^(?!.*(?:{'|'.join([*([inside] if inside else []), *pyramid])})).*$"


def _find_parts(model: Any) -> tuple[str, ...]:
    """Return the names of the PARTs of an OpenVINO model, ordered by the distance of their last node from the image."""
    depth: dict[str, int] = {}
    parts: dict[str, int] = {}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        sources = [source.get_source_output().get_node().get_friendly_name() for source in node.inputs()]
        before = [depth[source] for source in sources if source in depth]
        if not before and node.get_type_name() != "Parameter":
            continue  # a constant, or computed from constants
        depth[name] = max(before, default=0) + 1
        if match := PART.search(name):
            parts[match[1]] = max(depth[name], parts.get(match[1], 0))
    return tuple(sorted(parts, key=lambda part: parts[part]))


def quantize(
    exported: Path,
    out: Path,
    calibration: Sequence[Path],
    dataset: Dataset,
    images: Path,
    *,
    say: Callable[[str], None] = print,
) -> tuple[Accuracy, Accuracy, tuple[str, ...]]:
    """Write the OpenVINO export in the folder `exported` to the folder `out` with INT8 arithmetic.

    calibration: radiographs from which the range of every feature map is estimated; up to CALIBRATION_IMAGES of them
    are used, evenly spaced. dataset: annotated validation images in the folder `images`, on which both are measured.
    If INT8 loses too much accuracy, each part alone is left in float in turn, from the image to the heads (what an
    early part loses, no later one can recover), then the first two, the first three, and so on.
    Returns the accuracy of source and export, and the parts left in float.

    Raises ExportError when INT8 in the last part alone still loses too much.
    """
    if not calibration:
        raise ExportError("no images to calibrate on")
    source = open_openvino(str(exported))
    before = measure_accuracy(source, dataset, images)
    network = _QuantizableModel(source, exported / FORMATS["openvino"][0], _inputs(calibration, source.letterbox))
    parts = network.parts
    for float_parts in [(), *((part,) for part in parts), *(parts[:count] for count in range(2, len(parts)))]:
        after = measure_accuracy(network.write(out, float_parts), dataset, images)
        say(f"INT8 {after}; before {before}; left in float besides heads: {', '.join(float_parts) or 'nothing'}")
        try:
            check_drop(before, after, ap50=MAX_AP50_DROP_INT8)
        except ExportError as error:
            last_error = error
        else:
            return before, after, float_parts
    raise last_error


def _inputs(images: Sequence[Path], letterbox: Letterbox) -> list[Pixels]:
    indices = np.linspace(0, len(images) - 1, min(CALIBRATION_IMAGES, len(images))).round().astype(int)
    return [letterbox.apply_image(read_radiograph(images[index]).pixels) for index in indices]
