"""INT8: an OpenVINO export quantized by NNCF on real radiographs, with what costs accuracy left in float."""

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
from fracture_det.export.verify import MAX_AP50_DROP_INT8, Accuracy, ExportError, accuracy_of, check_drop
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.exported import ExportedDetector
from fracture_det.inference.openvino import open_openvino
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.radiograph import Pixels, read_radiograph

# The parts of the graph that may be quantized, by the names that Detectron2's modules give them; they hold nearly all
# arithmetic. What follows them (box decoding, NMS, the layers whose outputs are box sides and scores) stays in float: 8
# bits over 800 px move a box by pixels.
PART = re.compile(
    r"/(bottom_up/(?:network/)?[^/]+(?:/[^/]+\.\d+(?=/))?|backbone(?=/(?!bottom_up))|rpn_head/conv|box_head)"
)
CALIBRATION_IMAGES = 60


class _Network:
    """An OpenVINO model that can be quantized in several ways.

    parts: what may be quantized, from the image to the heads.
    """

    def __init__(self, source: ExportedDetector, path: Path, inputs: Sequence[Pixels]) -> None:
        self.facts, self._inputs = source.facts, inputs
        self._model = read_for_nncf(path)
        self.parts = _parts(self._model)
        if not self.parts:
            raise ExportError(f"{path}: nothing to quantize; no part has a name as Detectron2's backbones give them")
        equalize_first_layer(self._model, inputs)

    def write(self, out: Path, kept: Sequence[str]) -> ExportedDetector:
        """Write the model with INT8 in all parts but those of `kept`; return it, opened."""
        nncf = quiet_nncf()
        model = self._model.clone()
        if takes_image := self.parts[0] not in kept:
            centre_first_layer(model)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(self._inputs, lambda one: np.repeat(one[None], self.facts.batch_size, axis=0)),
            preset=nncf.QuantizationPreset.MIXED,  # feature maps after anything but a ReLU are not symmetric
            subset_size=len(self._inputs),
            ignored_scope=nncf.IgnoredScope(patterns=[self._all_but_parts(kept)], validate=False),
        )
        if takes_image:
            keep_grey_values(quantized)
        about = {**self.facts.about, "left in float": ", ".join(kept) or "nothing but heads and geometry"}
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / name for name in FORMATS["openvino"]]
        save_openvino(quantized, replace(self.facts, precision="int8", about=about), paths[0], half=True)
        write_checksums(*paths)
        return open_openvino(str(out))

    def _all_but_parts(self, kept: Sequence[str]) -> str:
        """Return a pattern of the names of all that must stay in float."""
        quantized = [part for part in self.parts if part not in kept]
        inside = "|".join(rf"/{re.escape(part)}(?:/|_|$)" for part in quantized if part != "backbone")
        pyramid = [r"/backbone/(?!bottom_up)"] if "backbone" in quantized else []
        return f"^(?!.*(?:{'|'.join([*([inside] if inside else []), *pyramid])})).*$"


def _parts(model: Any) -> tuple[str, ...]:
    """Return what PART names in an OpenVINO model, in the order of the distances of their last nodes from the image."""
    depth: dict[str, int] = {}
    parts: dict[str, int] = {}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        sources = [each.get_source_output().get_node().get_friendly_name() for each in node.inputs()]
        before = [depth[source] for source in sources if source in depth]
        if not before and node.get_type_name() != "Parameter":
            continue  # a constant, or made of constants
        depth[name] = max(before, default=0) + 1
        if found := PART.search(name):
            parts[found[1]] = max(depth[name], parts.get(found[1], 0))
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

    calibration: radiographs that show the range of every feature map; up to CALIBRATION_IMAGES of them are taken,
    evenly spaced. dataset: annotated validation images in the folder `images`, on which both are measured.
    Where INT8 costs too much, one part at a time is left in float instead, from the image to the heads: what the first
    ones lose is lost to all others. Where no part alone is to blame, the first two are, the first three, and so on.
    Returns the accuracy of source and export, and the parts left in float.

    Raises ExportError when INT8 in the last part alone still costs too much.
    """
    if not calibration:
        raise ExportError("no images to calibrate on")
    source = open_openvino(str(exported))
    before = accuracy_of(source, dataset, images)
    network = _Network(source, exported / FORMATS["openvino"][0], _inputs(calibration, source.letterbox))
    parts = network.parts
    for kept in [(), *((part,) for part in parts), *(parts[:count] for count in range(2, len(parts)))]:
        after = accuracy_of(network.write(out, kept), dataset, images)
        say(f"INT8 {after}; before {before}; left in float besides heads: {', '.join(kept) or 'nothing'}")
        try:
            check_drop(before, after, ap50=MAX_AP50_DROP_INT8)
        except ExportError as error:
            too_much = error
        else:
            return before, after, kept
    raise too_much


def _inputs(images: Sequence[Path], letterbox: Letterbox) -> list[Pixels]:
    chosen = np.linspace(0, len(images) - 1, min(CALIBRATION_IMAGES, len(images))).round().astype(int)
    return [letterbox.apply_image(read_radiograph(images[index]).pixels) for index in chosen]
