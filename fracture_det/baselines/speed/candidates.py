"""The candidates of a benchmark: Detectron2's own predictor, this project's detector in every form, the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from fracture_det.baselines.baseline import RANDOM, Baseline
from fracture_det.baselines.openvino_export import export_baseline, quantize_baseline
from fracture_det.baselines.speed.measurement import missing_package
from fracture_det.baselines.zoo import BASELINES
from fracture_det.export.exporter import ExportOptions, run_export
from fracture_det.export.graph import FORMATS
from fracture_det.inference.detectron2 import find_weights
from fracture_det.inference.ensemble import ENSEMBLE_FILE, EnsembleConfig, ensemble_file
from fracture_det.inference.registry import SHIPPED, TRAINED, scheme_and_target
from fracture_det.inference.type_classifier import FILES
from fracture_det.registry.opening import SCHEME, uri_in
from fracture_det.structures.hashes import sha256_of
from fracture_det.structures.radiograph import read_radiograph

Say = Callable[[str], None]
RUNTIMES = {"openvino": "OpenVINO FP32", "onnx": "ONNX Runtime", "torchscript": "TorchScript"}
SHIPPED_NAME, PRUNED_NAME = "OpenVINO INT8 (shipped)", "pruned, one view"
SAME_WEIGHTS = "same weights"
RANDOM_NOTE = "random weights: speed only"
# How many images INT8 estimates a baseline's ranges on; with random weights more would make no difference.
CALIBRATION_IMAGES = 2


@dataclass(frozen=True)
class Candidate:
    """One row of the results: a name, the URI of a detector, its kind, and a remark on its accuracy.

    kind: "ours", "detectron2" or a baseline's scheme; see `kind_of_detector`.
    """

    name: str
    uri: str
    kind: str
    accuracy: str

    @property
    def size_mb(self) -> float | None:
        """Size of the files that a user has to install, 1 MB = 10^6 bytes; None where there is none."""
        files = model_files(self.uri)
        return sum(path.stat().st_size for path in files) / 1e6 if files else None


@dataclass(frozen=True)
class Candidates:
    """What will be measured, and what cannot be.

    skipped: name -> which package or file is missing for it. failed: name -> why it could not be exported.
    """

    measurable: tuple[Candidate, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Candidates) -> Candidates:
        return Candidates(
            self.measurable + other.measurable, {**self.skipped, **other.skipped}, {**self.failed, **other.failed}
        )


def prepare_candidate(candidate: Candidate, export: Callable[[], None]) -> Candidates:
    """Return the candidate after `export` has written its files, or why it is skipped or failed."""
    try:
        export()
    except Exception as error:  # whatever an exporter raises, the others can still be measured
        if missing := missing_package(error):
            return Candidates(skipped={candidate.name: missing})
        return Candidates(failed={candidate.name: f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"})
    return Candidates((candidate,))


def kind_of_detector(uri: str) -> str:
    """Return the kind of the detector `uri`: a baseline's scheme, "detectron2", or "ours"."""
    scheme = uri.partition(":")[0]
    return scheme if scheme in BASELINES else {"defaultpredictor": "detectron2"}.get(scheme, "ours")


def model_files(uri: str) -> tuple[Path, ...]:
    """Return the files of weights and graphs that the detector `uri` needs; none if it names no file."""
    scheme, target = scheme_and_target(uri)
    if scheme == SCHEME:
        return model_files(uri_in(target))
    path = Path(target)
    if scheme == "ensemble":
        path = ensemble_file(path)
        config = EnsembleConfig.load(path)
        members = [member.partition(":") for member in config.members]
        types = [path.parent / config.types / name for name in FILES] if config.types is not None else []
        return (*(file for kind, _, name in members for file in model_files(f"{kind}:{path.parent / name}")), *types)
    if scheme in ("d2", "defaultpredictor") or (scheme in TRAINED and path.is_dir()):
        return (find_weights(path),)
    if scheme in FORMATS and path.is_dir():
        path = path / FORMATS[scheme][0]
    return tuple(file for file in dict.fromkeys((path, path.with_suffix(".bin"))) if file.is_file())


def own_candidates(source: Path, out: Path, images: Sequence[Path], *, say: Say = print) -> Candidates:
    """Return Detectron2's DefaultPredictor, and the ensemble of the file `source` in every form.

    source: an ensemble.json whose members are d2. images: radiographs to trace and compare on. Exports go to `out` and
    are kept there, in a folder named after the weights, so that exports of other weights are never reused.
    """
    ensemble = EnsembleConfig.load(source)
    folders = [(source.parent / uri.partition(":")[2]).resolve() for uri in ensemble.members]
    out = out / "-".join(sha256_of(find_weights(folder))[:8] for folder in folders)
    plain = out / "defaultpredictor" / ENSEMBLE_FILE
    plain.parent.mkdir(parents=True, exist_ok=True)
    members = tuple(f"defaultpredictor:{folder}" for folder in folders)
    msgspec.structs.replace(ensemble, members=members).save(plain)
    views = len(members) * len(ensemble.orientations)
    candidates = Candidates(
        (
            Candidate(f"DefaultPredictor, {views} views", f"ensemble:{plain}", "detectron2", SAME_WEIGHTS),
            Candidate("DefaultPredictor, one view", members[0], "detectron2", "of one member alone"),
            Candidate("Detectron2, batched", f"ensemble:{source}", "ours", SAME_WEIGHTS),
        )
    )
    for to, name in RUNTIMES.items():
        folder = out / to
        candidate = Candidate(name, f"ensemble:{folder}", "ours", SAME_WEIGHTS)
        export = ExportOptions(f"ensemble:{source}", to, folder, str(images[0].parent), check_count=2)
        candidates += prepare_candidate(candidate, partial(_export, export, say))
    return candidates


def _export(export: ExportOptions, say: Say) -> None:
    if not (export.out / ENSEMBLE_FILE).is_file():  # written last
        say(f"exporting to {export.to}")
        run_export(export, say=lambda text: None)


def shipped_candidate(same_weights: bool) -> Candidates:
    """Return the shipped detector if it is INT8; same_weights: whether its weights are those of `own_candidates`."""
    if not same_weights:
        return Candidates(skipped={SHIPPED_NAME: "--detector names other weights"})
    if not all(uri.startswith("openvino:") for uri in EnsembleConfig.load(SHIPPED / ENSEMBLE_FILE).members):
        return Candidates(skipped={SHIPPED_NAME: f"{SHIPPED.name}/{ENSEMBLE_FILE} names no exported members"})
    return Candidates((Candidate(SHIPPED_NAME, "shipped", "ours", "weights/shipped/MODEL_CARD.md"),))


def pruned_candidate(uri: str | None) -> Candidates:
    """Return the pruned detector `uri`."""
    if uri is None:
        return Candidates(skipped={PRUNED_NAME: "none is shipped; docs/exports.md makes one for --pruned"})
    return Candidates((Candidate(PRUNED_NAME, uri, kind_of_detector(uri), "fewer channels; not measured here"),))


def baseline_candidates(out: Path, images: Sequence[Path], *, quick: bool, say: Say = print) -> Candidates:
    """Return each baseline in PyTorch, in OpenVINO, and in OpenVINO with INT8; quick: in OpenVINO float32 alone.

    Exports go to `out` and are kept there. images: INT8 estimates its ranges on the first of them.
    """
    candidates = Candidates()
    for scheme, baseline in BASELINES.items():
        float_path, int8_path = (out / scheme / precision / "model.xml" for precision in ("fp32", "int8"))
        if not quick:
            candidate = Candidate(f"{baseline.title}, torch", f"{scheme}:{RANDOM}", scheme, RANDOM_NOTE)
            candidates += Candidates((candidate,))
        candidate = Candidate(f"{baseline.title}, OpenVINO FP32", f"{scheme}:{float_path}", scheme, RANDOM_NOTE)
        exported = prepare_candidate(candidate, partial(_export_baseline, baseline, float_path, say))
        candidates += exported
        if exported.measurable and not quick:
            candidate = Candidate(f"{baseline.title}, OpenVINO INT8", f"{scheme}:{int8_path}", scheme, RANDOM_NOTE)
            ranges = images[:CALIBRATION_IMAGES]
            candidates += prepare_candidate(
                candidate, partial(_quantize_baseline, baseline, float_path, int8_path, ranges, say)
            )
    return candidates


def _export_baseline(baseline: Baseline, path: Path, say: Say) -> None:
    if not path.is_file():
        say(f"exporting {baseline.title} to OpenVINO")
        export_baseline(baseline, RANDOM, path)


def _quantize_baseline(baseline: Baseline, exported: Path, path: Path, images: Sequence[Path], say: Say) -> None:
    if not path.is_file():
        say(f"quantizing {baseline.title}")
        quantize_baseline(baseline, exported, path, [read_radiograph(image).pixels for image in images])
