"""Who takes part in a benchmark: Detectron2 as it comes, our detector in every form, and the paper's rivals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fracture_det.export.agreement import ExportError
from fracture_det.export.graph import FORMATS
from fracture_det.export.task import Export, run
from fracture_det.inference.d2 import find_weights
from fracture_det.inference.detector import SHIPPED, DetectorError
from fracture_det.inference.fused import FUSION_FILE, Fusion
from fracture_det.inference.rivals import RANDOM, RIVALS, export_rival

Say = Callable[[str], None]
RUNTIMES = {"openvino": "OpenVINO FP32", "onnx": "ONNX Runtime", "torchscript": "TorchScript"}
RANDOM_NOTE = "random weights: speed only"


@dataclass(frozen=True)
class Contender:
    """One row: a name, what `open_detector` opens, whose it is, and what must be known of its accuracy.

    kind: "ours", "detectron2" or the rival's scheme. files: what a user has to carry; none means that nothing is said.
    """

    name: str
    uri: str
    kind: str
    accuracy: str
    files: tuple[Path, ...] = ()

    @property
    def size_mb(self) -> float | None:
        """Size of the files, 1 MB = 10^6 bytes."""
        return sum(path.stat().st_size for path in self.files) / 1e6 if self.files else None


def ours(source: Path, out: Path, images: Sequence[Path], *, say: Say = print) -> list[Contender]:
    """Return the fused detector of the file `source` in every form; exports go to `out` and are kept there.

    source: a fusion file whose members are d2. images: radiographs to trace and compare on.
    """
    fusion = Fusion.load(source)
    folders = [source.parent / uri.partition(":")[2] for uri in fusion.members]
    weights = tuple(find_weights(folder) for folder in folders)
    plain = out / "defaultpredictor" / FUSION_FILE
    plain.parent.mkdir(parents=True, exist_ok=True)
    members = tuple(f"defaultpredictor:{folder.resolve()}" for folder in folders)
    plain.write_text(json.dumps(asdict(replace(fusion, members=members))))
    contenders = [
        Contender("Detectron2 DefaultPredictor", f"fused:{plain}", "detectron2", "as shipped", weights),
        Contender("Detectron2, batched", f"fused:{source}", "ours", "as shipped", weights),
    ]
    for to in RUNTIMES:
        folder = out / to
        if not (folder / FUSION_FILE).is_file():
            say(f"exporting to {to}")
            run(Export(f"fused:{source}", to, folder, str(images[0].parent), check_count=2), say=lambda text: None)
        files = tuple(path for name in FORMATS[to] for path in sorted(folder.glob(f"*/{name}")))
        contenders.append(Contender(RUNTIMES[to], f"fused:{folder}", "ours", "as shipped", files))
    return contenders


def shipped() -> list[Contender]:
    """Return the shipped detector, where it is not the one of `ours`: INT8."""
    fusion = Fusion.load(SHIPPED / FUSION_FILE)
    if not all(uri.startswith("openvino:") for uri in fusion.members):
        return []
    files = tuple(path for uri in fusion.members for path in (SHIPPED / uri.partition(":")[2]).glob("model.*"))
    return [Contender("OpenVINO INT8 (shipped)", "shipped", "ours", "as shipped", files)]


def rivals(out: Path, *, torch_too: bool, say: Say = print) -> tuple[list[Contender], dict[str, str]]:
    """Return the rivals exported to OpenVINO, and those that cannot take part with the reason.

    torch_too: each also as its own library runs it.
    """
    found: list[Contender] = []
    missing: dict[str, str] = {}
    for scheme, rival in RIVALS.items():
        path = out / scheme / "model.xml"
        try:
            if not path.is_file():
                say(f"exporting {rival.title} to OpenVINO")
                export_rival(scheme, RANDOM, path)
        except (DetectorError, ExportError) as error:
            missing[rival.title] = str(error)
            continue
        files = (path, path.with_suffix(".bin"))
        if torch_too:
            found.append(Contender(f"{rival.title}, torch", f"{scheme}:{RANDOM}", scheme, RANDOM_NOTE))
        found.append(Contender(f"{rival.title}, OpenVINO FP32", f"{scheme}:{path}", scheme, RANDOM_NOTE, files))
    return found, missing
