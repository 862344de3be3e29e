"""Who takes part in a benchmark: Detectron2 as it comes, our detector in every form, and the paper's rivals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from fracture_det.baselines.rivals import BASELINES, RANDOM, export_baseline, quantize_baseline
from fracture_det.baselines.speed.measurement import missing_package
from fracture_det.export.exporter import ExportOptions, run_export
from fracture_det.export.graph import FORMATS
from fracture_det.inference.detectron2 import find_weights
from fracture_det.inference.ensemble import ENSEMBLE_FILE, EnsembleConfig
from fracture_det.inference.registry import SHIPPED
from fracture_det.modeling.checkpoints import sha256_of
from fracture_det.structures.radiograph import read_radiograph

Say = Callable[[str], None]
RUNTIMES = {"openvino": "OpenVINO FP32", "onnx": "ONNX Runtime", "torchscript": "TorchScript"}
SHIPPED_NAME, PRUNED_NAME = "OpenVINO INT8 (shipped)", "pruned, one look"
SAME_WEIGHTS = "same weights"
RANDOM_NOTE = "random weights: speed only"
# Of these, INT8 takes a rival's ranges; with random weights more would say nothing more.
CALIBRATION_IMAGES = 2


@dataclass(frozen=True)
class Candidate:
    """One row: a name, what `open_detector` opens, whose it is, and what must be known of its accuracy.

    kind: "ours", "detectron2" or the rival's scheme; see `kind_of`.
    """

    name: str
    uri: str
    kind: str
    accuracy: str

    @property
    def size_mb(self) -> float | None:
        """Size of the files that a user has to carry, 1 MB = 10^6 bytes; None where there is none."""
        files = files_of(self.uri)
        return sum(path.stat().st_size for path in files) / 1e6 if files else None


@dataclass(frozen=True)
class Candidates:
    """Contenders; skipped: name -> what is missing for another; failed: name -> why another could not be made."""

    contenders: tuple[Candidate, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Candidates) -> Candidates:
        return Candidates(
            self.contenders + other.contenders, {**self.skipped, **other.skipped}, {**self.failed, **other.failed}
        )


def made(contender: Candidate, make: Callable[[], None]) -> Candidates:
    """Return the contender after `make` has written its files, or why it cannot take part."""
    try:
        make()
    except Exception as error:  # whatever an exporter raises, the others are still worth measuring
        if missing := missing_package(error):
            return Candidates(skipped={contender.name: missing})
        return Candidates(failed={contender.name: f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"})
    return Candidates((contender,))


def kind_of(uri: str) -> str:
    """Return whose detector `uri` names: a rival's scheme, "detectron2", or "ours"."""
    scheme = uri.partition(":")[0]
    return scheme if scheme in BASELINES else {"defaultpredictor": "detectron2"}.get(scheme, "ours")


def files_of(uri: str) -> tuple[Path, ...]:
    """Return the files with the weights and graphs that `uri` needs; none where it names no file."""
    scheme, _, target = ("fused", "", str(SHIPPED)) if uri == "shipped" else uri.partition(":")
    path = Path(target)
    if scheme == "fused":
        path = path / ENSEMBLE_FILE if path.is_dir() else path
        members = [member.partition(":") for member in EnsembleConfig.load(path).members]
        return tuple(file for kind, _, name in members for file in files_of(f"{kind}:{path.parent / name}"))
    if scheme in ("d2", "defaultpredictor"):
        return (find_weights(path),)
    if scheme in FORMATS and path.is_dir():
        path = path / FORMATS[scheme][0]
    return tuple(file for file in dict.fromkeys((path, path.with_suffix(".bin"))) if file.is_file())


def ours(source: Path, out: Path, images: Sequence[Path], *, say: Say = print) -> Candidates:
    """Return Detectron2's DefaultPredictor and the fused detector of the file `source` in every form.

    source: a fusion file whose members are d2. images: radiographs to trace and compare on. Exports go to `out` and
    are kept there, in a folder named after the weights: other weights never meet the exports of these.
    """
    fusion = EnsembleConfig.load(source)
    folders = [(source.parent / uri.partition(":")[2]).resolve() for uri in fusion.members]
    out = out / "-".join(sha256_of(find_weights(folder))[:8] for folder in folders)
    plain = out / "defaultpredictor" / ENSEMBLE_FILE
    plain.parent.mkdir(parents=True, exist_ok=True)
    members = tuple(f"defaultpredictor:{folder}" for folder in folders)
    plain.write_text(json.dumps(asdict(replace(fusion, members=members))), encoding="utf-8")
    looks = len(members) * len(fusion.orientations)
    lineup = Candidates(
        (
            Candidate(f"DefaultPredictor, {looks} looks fused", f"fused:{plain}", "detectron2", SAME_WEIGHTS),
            Candidate("DefaultPredictor, one look", members[0], "detectron2", "of one member alone"),
            Candidate("Detectron2, batched", f"fused:{source}", "ours", SAME_WEIGHTS),
        )
    )
    for to, name in RUNTIMES.items():
        folder = out / to
        contender = Candidate(name, f"fused:{folder}", "ours", SAME_WEIGHTS)
        export = ExportOptions(f"fused:{source}", to, folder, str(images[0].parent), check_count=2)
        lineup += made(contender, partial(_export, export, say))
    return lineup


def _export(export: ExportOptions, say: Say) -> None:
    if not (export.out / ENSEMBLE_FILE).is_file():  # written last
        say(f"exporting to {export.to}")
        run_export(export, say=lambda text: None)


def shipped(same_weights: bool) -> Candidates:
    """Return the shipped detector where it is INT8; same_weights: whether it is what `ours` measures."""
    if not same_weights:
        return Candidates(skipped={SHIPPED_NAME: "--detector names other weights"})
    if not all(uri.startswith("openvino:") for uri in EnsembleConfig.load(SHIPPED / ENSEMBLE_FILE).members):
        return Candidates(skipped={SHIPPED_NAME: f"{SHIPPED.name}/{ENSEMBLE_FILE} names no exported members"})
    return Candidates((Candidate(SHIPPED_NAME, "shipped", "ours", "weights/shipped/MODEL_CARD.md"),))


def pruned(uri: str | None) -> Candidates:
    """Return the pruned detector `uri`."""
    if uri is None:
        return Candidates(skipped={PRUNED_NAME: "none is shipped; docs/exports.md makes one for --pruned"})
    return Candidates((Candidate(PRUNED_NAME, uri, kind_of(uri), "less channels; not measured here"),))


def rivals(out: Path, images: Sequence[Path], *, quick: bool, say: Say = print) -> Candidates:
    """Return the rivals as their own libraries run them, in OpenVINO, and there in INT8; quick: in OpenVINO alone.

    Exports go to `out` and are kept there. images: the first of them give INT8 its ranges.
    """
    lineup = Candidates()
    for scheme, rival in BASELINES.items():
        float_path, int8_path = (out / scheme / precision / "model.xml" for precision in ("fp32", "int8"))
        if not quick:
            contender = Candidate(f"{rival.title}, torch", f"{scheme}:{RANDOM}", scheme, RANDOM_NOTE)
            lineup += Candidates((contender,))
        contender = Candidate(f"{rival.title}, OpenVINO FP32", f"{scheme}:{float_path}", scheme, RANDOM_NOTE)
        exported = made(contender, partial(_export_rival, scheme, float_path, say))
        lineup += exported
        if exported.contenders and not quick:
            contender = Candidate(f"{rival.title}, OpenVINO INT8", f"{scheme}:{int8_path}", scheme, RANDOM_NOTE)
            ranges = images[:CALIBRATION_IMAGES]
            lineup += made(contender, partial(_quantize_rival, scheme, float_path, int8_path, ranges, say))
    return lineup


def _export_rival(scheme: str, path: Path, say: Say) -> None:
    if not path.is_file():
        say(f"exporting {BASELINES[scheme].title} to OpenVINO")
        export_baseline(scheme, RANDOM, path)


def _quantize_rival(scheme: str, exported: Path, path: Path, images: Sequence[Path], say: Say) -> None:
    if not path.is_file():
        say(f"quantizing {BASELINES[scheme].title}")
        quantize_baseline(scheme, exported, path, [read_radiograph(image).pixels for image in images])
