"""One export from beginning to end, of a detector or of each member of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from fracture_det.calibration.calibration import Calibration
from fracture_det.data.coco import read_coco
from fracture_det.export.graph import export_graph
from fracture_det.export.half_precision import export_safetensors
from fracture_det.export.verify import MAX_AP50_DROP_PRUNED, ExportError, check_drop, measure_accuracy
from fracture_det.inference.ensemble import ENSEMBLE_FILE, EnsembleConfig, ensemble_file
from fracture_det.inference.registry import TRAINED, open_detector, scheme_and_target
from fracture_det.inference.type_classifier import copy_classifier
from fracture_det.structures.image_files import find_images

SAFETENSORS = "safetensors"
Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, to which form, and on which radiographs the export is verified.

    detector: d2:FOLDER_OR_FILE (or yolov3:, efficientdet:, detr:), or ensemble:FOLDER and shipped, whose members are
    exported one by one.
    to: "safetensors" or one of FORMATS.
    check_images: file, folder or glob; check_count of them are compared on, evenly spaced.
    batch_size: images per call of the graph. half: OpenVINO stores weights in half precision. calibration:
    calibration.json of the source, for the file's metadata.
    title: the model's name in reports. int8: quantize on `calibration_images` (file, folder, glob, or a COCO file of
    `images`), and measure on the annotated images of
    `data` (a COCO file), which lie in `images`. prune: instead of a detector, write initial weights for training with
    this share of the backbone's channels removed. against: the detector that a pruned one was made from; the export
    may be only slightly less accurate on `data`.

    Raises ExportError for settings that contradict each other.
    """

    detector: str
    to: str
    out: Path
    check_images: str | None = None
    check_count: int = 200
    batch_size: int = 1
    half: bool = False
    title: str = ""
    calibration: Path | None = None
    int8: bool = False
    calibration_images: str | None = None
    data: Path | None = None
    images: Path | None = None
    prune: float | None = None
    against: str | None = None

    def __post_init__(self) -> None:
        if self.prune is None and not self.check_images:
            raise ExportError("--check-images: every export but a pruned start is compared on some")
        if self.int8 and self.to != "openvino":
            raise ExportError(f"--int8 needs --to openvino, got {self.to}")
        if self.half and (self.to != "openvino" or self.int8):
            raise ExportError("--half needs --to openvino without --int8; safetensors are stored so, INT8 is smaller")
        if self.int8 and None in (self.calibration_images, self.data, self.images):
            raise ExportError("--int8 needs --calibration-images to quantize on, --data and --images to measure on")
        if self.prune is not None and (self.to != SAFETENSORS or not self.detector.startswith("d2:")):
            raise ExportError("--prune needs --to safetensors and a d2: detector: what it writes is to be trained on")
        if self.against and None in (self.data, self.images):
            raise ExportError("--against needs --data and --images to measure on")
        if self.title and self.to != SAFETENSORS:
            raise ExportError("--title needs --to safetensors; other exports take it from there")
        for name in ("check_count", "batch_size"):
            if getattr(self, name) < 1:
                raise ExportError(f"{name}: expected at least 1, got {getattr(self, name)}")


def run_export(options: ExportOptions, *, say: Say = print) -> None:
    """Write the export that `options` describes, and report through `say` how well it agrees with its source.

    Raises ExportError when it does not agree, DetectorError and InputError for what cannot be read.
    """
    scheme, target = scheme_and_target(options.detector)
    if scheme in TRAINED:
        _export_detector(options, target, options.out, say)
    elif scheme == "ensemble":
        _export_members(options, ensemble_file(target), say)
    else:
        raise ExportError(f"detector {options.detector!r}: expected d2:FOLDER, ensemble:FOLDER or shipped")


def _export_members(options: ExportOptions, path: Path, say: Say) -> None:
    """Export every member of the ensemble.json at `path` into a folder of its name, and write an ensemble.json."""
    ensemble = EnsembleConfig.load(path)
    scheme = "d2" if options.to == SAFETENSORS else options.to
    members = []
    for uri in ensemble.members:
        kind, _, name = uri.partition(":")
        if kind not in TRAINED:
            raise ExportError(f"{path}, members: only training folders can be exported, got {uri!r}")
        _export_detector(options, str(path.parent / name), options.out / Path(name).name, say)
        members.append(f"{scheme}:{Path(name).name}")
    if ensemble.types is not None:
        copy_classifier(path.parent / ensemble.types, options.out / Path(ensemble.types).name)
        ensemble = msgspec.structs.replace(ensemble, types=Path(ensemble.types).name)
    msgspec.structs.replace(ensemble, members=tuple(members)).save(options.out / ENSEMBLE_FILE)
    say(f"{options.out / ENSEMBLE_FILE}: {' and '.join(members)}, combined as before")


def _export_detector(options: ExportOptions, target: str, out: Path, say: Say) -> None:
    """Export one detector; its files are moved to `out` only once they are verified."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        staged = Path(folder)
        _write_export(options, target, staged, out, say)
        if options.against:
            _compare_with_unpruned(options, staged, say)
        out.mkdir(exist_ok=True)
        for file in staged.iterdir():
            file.replace(out / file.name)
    say(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB")


def _write_export(options: ExportOptions, target: str, out: Path, final: Path, say: Say) -> None:
    check_images = _evenly_spaced(options.check_images, options.check_count) if options.check_images else []
    if options.prune is not None:
        from fracture_det.export.prune import prune  # torch-pruning is needed only here

        say(f"{target}: {prune(target, out, options.prune, start=final)}; now train it on with tools/train_net.py")
    elif options.to == SAFETENSORS:
        say(f"{target}: {export_safetensors(Path(target), out, check_images, title=options.title)}")
    elif options.int8:
        with TemporaryDirectory() as folder:
            _write_graph(options, target, Path(folder), check_images, say)
            _write_int8(options, Path(folder), out, lambda text: say(f"{target}: {text}"))
    else:
        _write_graph(options, target, out, check_images, say)


def _write_graph(options: ExportOptions, target: str, out: Path, check_images: Sequence[Path], say: Say) -> None:
    calibration = None if options.calibration is None else Calibration.load(options.calibration)
    agreement = export_graph(
        target, options.to, out, check_images, batch_size=options.batch_size, half=options.half, calibration=calibration
    )
    say(f"{options.to} of {target}: on {len(check_images)} radiographs {agreement}")


def _write_int8(options: ExportOptions, exported: Path, out: Path, say: Say) -> None:
    from fracture_det.export.int8 import quantize

    # ExportOptions has checked that these three are given.
    ranges, data, images = str(options.calibration_images), Path(str(options.data)), Path(str(options.images))
    if ranges.endswith(".json"):
        calibration_images = [images / record.file_name for record in read_coco(ranges).records]
    else:
        calibration_images = [path for _, path in find_images(ranges).files]
    quantize(exported, out, calibration_images, read_coco(data), images, say=say)


def _compare_with_unpruned(options: ExportOptions, out: Path, say: Say) -> None:
    """Raise ExportError if the pruned, retrained and exported detector lost more accuracy than is allowed."""
    data, images = read_coco(Path(str(options.data))), Path(str(options.images))
    scheme = "d2" if options.to == SAFETENSORS else options.to
    before = measure_accuracy(open_detector(str(options.against)), data, images)
    after = measure_accuracy(open_detector(f"{scheme}:{out}"), data, images)
    say(f"{after}; {options.against}: {before}")
    check_drop(before, after, ap50=MAX_AP50_DROP_PRUNED)


def _evenly_spaced(pattern: str, count: int) -> list[Path]:
    """Return up to `count` of the images that `pattern` names, evenly spaced."""
    files = [path for _, path in find_images(pattern).files]
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]
