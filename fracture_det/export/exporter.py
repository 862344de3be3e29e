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
from fracture_det.export.verify import MAX_AP50_DROP_PRUNED, ExportError, accuracy_of, check_drop
from fracture_det.inference.ensemble import ENSEMBLE_FILE, EnsembleConfig, ensemble_file
from fracture_det.inference.registry import open_detector, scheme_and_target
from fracture_det.structures.image_files import find_images

SAFETENSORS = "safetensors"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Export:
    """What is exported, to what, and on which radiographs it proves itself.

    detector: d2:FOLDER_OR_FILE, or ensemble:FOLDER and shipped, whose members are exported one by one.
    to: "safetensors" or one of FORMATS.
    check_images: file, folder or glob; check_count of them are compared on, evenly spaced.
    batch_size: images per call of the graph. half: OpenVINO stores weights in half precision. calibration:
    calibration.json of the source, for the file's metadata.
    title: what people call the model. int8: quantize on `calibration_images` (file, folder, glob, or a COCO file of
    `images`), and measure on the annotated images of
    `data` (a COCO file), which lie in `images`. prune: write a start for training with so much less of the channels
    instead. against: the detector that a pruned one was made from; the export must live up to it on `data`.

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


def run(export: Export, *, say: Say = print) -> None:
    """Write what `export` asks for, and say how it agrees with its source.

    Raises ExportError when it does not, DetectorError and InputError for what cannot be read.
    """
    scheme, target = scheme_and_target(export.detector)
    if scheme == "d2":
        _run_one(export, target, export.out, say)
    elif scheme == "ensemble":
        _run_members(export, ensemble_file(target), say)
    else:
        raise ExportError(f"detector {export.detector!r}: expected d2:FOLDER, ensemble:FOLDER or shipped")


def _run_members(export: Export, path: Path, say: Say) -> None:
    """Export every member of the ensemble.json at `path` into a folder of its name, and write an ensemble.json."""
    ensemble = EnsembleConfig.load(path)
    scheme = "d2" if export.to == SAFETENSORS else export.to
    members = []
    for uri in ensemble.members:
        kind, _, name = uri.partition(":")
        if kind != "d2":
            raise ExportError(f"{path}, members: only d2 can be exported, got {uri!r}")
        _run_one(export, str(path.parent / name), export.out / Path(name).name, say)
        members.append(f"{scheme}:{Path(name).name}")
    msgspec.structs.replace(ensemble, members=tuple(members)).save(export.out / ENSEMBLE_FILE)
    say(f"{export.out / ENSEMBLE_FILE}: {' and '.join(members)}, fused as before")


def _run_one(export: Export, target: str, out: Path, say: Say) -> None:
    """Export one detector; `out` gets its files only when they have proved themselves."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        staged = Path(folder)
        _write(export, target, staged, out, say)
        if export.against:
            _compare_with_unpruned(export, staged, say)
        out.mkdir(exist_ok=True)
        for file in staged.iterdir():
            file.replace(out / file.name)
    say(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB")


def _write(export: Export, target: str, out: Path, final: Path, say: Say) -> None:
    checked = _some(export.check_images, export.check_count) if export.check_images else []
    if export.prune is not None:
        from fracture_det.export.prune import prune  # only here is torch-pruning needed

        say(f"{target}: {prune(target, out, export.prune, start=final)}; now train it on with tools/train_net.py")
    elif export.to == SAFETENSORS:
        say(f"{target}: {export_safetensors(Path(target), out, checked, title=export.title)}")
    elif export.int8:
        with TemporaryDirectory() as between:
            _graph(export, target, Path(between), checked, say)
            _int8(export, Path(between), out, lambda text: say(f"{target}: {text}"))
    else:
        _graph(export, target, out, checked, say)


def _graph(export: Export, target: str, out: Path, checked: Sequence[Path], say: Say) -> None:
    calibration = None if export.calibration is None else Calibration.load(export.calibration)
    agreement = export_graph(
        target, export.to, out, checked, batch_size=export.batch_size, half=export.half, calibration=calibration
    )
    say(f"{export.to} of {target}: on {len(checked)} radiographs {agreement}")


def _int8(export: Export, between: Path, out: Path, say: Say) -> None:
    from fracture_det.export.int8 import quantize

    # Export has checked that these three are given.
    ranges, data, images = str(export.calibration_images), Path(str(export.data)), Path(str(export.images))
    if ranges.endswith(".json"):
        on = [images / record.file_name for record in read_coco(ranges).records]
    else:
        on = [path for _, path in find_images(ranges).files]
    quantize(between, out, on, read_coco(data), images, say=say)


def _compare_with_unpruned(export: Export, out: Path, say: Say) -> None:
    """Raise ExportError when pruning, and what came after it, cost more than is allowed."""
    data, images = read_coco(Path(str(export.data))), Path(str(export.images))
    scheme = "d2" if export.to == SAFETENSORS else export.to
    before = accuracy_of(open_detector(str(export.against)), data, images)
    after = accuracy_of(open_detector(f"{scheme}:{out}"), data, images)
    say(f"{after}; {export.against}: {before}")
    check_drop(before, after, ap50=MAX_AP50_DROP_PRUNED)


def _some(pattern: str, count: int) -> list[Path]:
    """Return up to `count` of the images that `pattern` names, evenly spaced."""
    files = [path for _, path in find_images(pattern).files]
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]
