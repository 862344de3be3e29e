"""Adding a version: its files copied, described, signed, and published as a whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fracture_det.data.snapshot_files import SNAPSHOT_FILE, read_snapshot
from fracture_det.registry.errors import RegistryError
from fracture_det.registry.opening import identity_of
from fracture_det.registry.packing import card_of, copy_detector
from fracture_det.registry.registry import Registry, remove_unfinished
from fracture_det.registry.signatures import SIGNATURE_FILE, read_private_key, sign
from fracture_det.registry.states import UNFINISHED, locked, now
from fracture_det.registry.versions import (
    CALIBRATION_FILE,
    CARD_FILE,
    CONFIGURATION_FOLDER,
    DETECTOR_FOLDER,
    FORMAT,
    HASH_DIGITS,
    VERDICT_FILE,
    VERSION_FILE,
    DataFacts,
    DetectorFacts,
    Manifest,
    Version,
    content_sha256,
    files_in,
    sync,
)
from fracture_det.structures.hashes import sha256_of


@dataclass(frozen=True)
class Source:
    """What becomes a version. detector: its URI. card: its model card, None for the one beside it.

    configuration: files that it was trained by. verdict: of the gate. data: a snapshot, or a file that lists the
    training images. parents: names of the versions it was trained on from.
    """

    detector: str
    calibration: Path | None = None
    card: Path | None = None
    configuration: Sequence[Path] = ()
    verdict: Path | None = None
    data: Path | None = None
    parents: tuple[str, ...] = ()
    note: str = ""


def add_version(registry: Registry, source: Source) -> tuple[Version, bool]:
    """Copy and sign a detector with all that belongs to it; return it, and whether it is new.

    The same content is the same version, whoever adds it when. Raises RegistryError, DetectorError, SnapshotError where
    something is missing or does not fit, and OSError; nothing is left then.
    """
    key = read_private_key(registry.keys)
    data = None if source.data is None else _data_facts(source.data)
    registry.folder.mkdir(parents=True, exist_ok=True)
    with locked(registry.folder):
        remove_unfinished(registry.folder)
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=registry.folder))
        folder.chmod(0o755)
        try:
            detector = _copy(source, folder)
            files = {name: sha256_of(folder / name) for name in files_in(folder)}
            digest = content_sha256(detector, source.parents, data, files)
            for known in registry.names:
                if known.endswith(f"-{digest[:HASH_DIGITS]}"):
                    return registry.verify(known), False
            at = now()
            name = f"{at[:10]}-{digest[:HASH_DIGITS]}"
            facts = (at, registry.by, detector, source.parents, data, files, source.note)
            content = Manifest(FORMAT, name, digest, *facts).to_json()
            (folder / VERSION_FILE).write_bytes(content)
            (folder / SIGNATURE_FILE).write_bytes(sign(content, key))
            sync(folder)
            return registry.publish(folder, name), True
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Source, folder: Path) -> DetectorFacts:
    uri = copy_detector(source.detector, folder / DETECTOR_FOLDER)
    scheme, _, path = uri.partition(":")
    if source.calibration is not None:
        shutil.copyfile(source.calibration, folder / CALIBRATION_FILE)
    # The copies are opened, not the originals: a file that was not copied is missed now.
    calibration = None if source.calibration is None else folder / CALIBRATION_FILE
    name, sha256 = identity_of(f"{scheme}:{folder / path}", calibration)
    shutil.copyfile(_card(source), folder / CARD_FILE)
    if source.verdict is not None:
        file = source.verdict / VERDICT_FILE if source.verdict.is_dir() else source.verdict
        shutil.copyfile(file, folder / VERDICT_FILE)
    for file in source.configuration:
        target = folder / CONFIGURATION_FOLDER / file.name
        if target.exists():
            raise RegistryError(f"--config {file}: there is another file of that name")
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    return DetectorFacts(uri, name, sha256)


def _card(source: Source) -> Path:
    card = source.card or card_of(source.detector)
    if card is None:
        raise RegistryError(f"detector {source.detector!r}: no model card beside it; --card names one")
    return card


def _data_facts(path: Path) -> DataFacts:
    if (path / SNAPSHOT_FILE).is_file():
        snapshot = read_snapshot(path)
        return DataFacts(snapshot.name, snapshot.content["sha256"])
    if not path.is_file():
        raise RegistryError(f"--data {path}: expected a snapshot, or a file that lists the training images")
    return DataFacts(path.name, sha256_of(path))
