"""One version of a detector: its files, where it comes from, and whether all of it is as it was signed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fracture_det.registry.errors import RegistryError
from fracture_det.registry.signatures import SIGNATURE_FILE, check_signature
from fracture_det.structures.hashes import sha256_of
from fracture_det.structures.strict_json import convert_json, parse_json

FORMAT = "fracture_det model version 1"
VERSION_FILE, CARD_FILE, CALIBRATION_FILE, VERDICT_FILE = (
    "version.json",
    "MODEL_CARD.md",
    "calibration.json",
    "verdict.json",
)
DETECTOR_FOLDER, CONFIGURATION_FOLDER = "detector", "configuration"
HASH_DIGITS = 12
VERSION_NAME = re.compile(rf"\d{{4}}-\d\d-\d\d-[0-9a-f]{{{HASH_DIGITS}}}")


class DetectorFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The detector in a version. uri: with a path relative to it. name, sha256: as its DetectorInfo has them."""

    uri: str
    name: str
    sha256: str


class DataFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it was trained on: the name and the SHA-256 of a snapshot, or of the file that lists the images."""

    name: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a version.json. parents: names of the versions it was trained on from.

    sha256: of detector, parents, data and files together. files: SHA-256 by path in the version.
    """

    format: str
    name: str
    sha256: str
    added_at: str
    added_by: str
    detector: DetectorFacts
    parents: tuple[str, ...]
    data: DataFacts | None
    files: dict[str, str]
    note: str = ""

    def to_json(self) -> bytes:
        """Return the bytes that are signed."""
        return json.dumps(msgspec.to_builtins(self), indent=1, sort_keys=True).encode() + b"\n"


@dataclass(frozen=True)
class Version:
    """A version and where it lies."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The date and the first digits of the hash."""
        return self.manifest.name

    @property
    def calibration(self) -> Path | None:
        """Its calibration.json, or None of a detector with raw scores."""
        return self.folder / CALIBRATION_FILE if CALIBRATION_FILE in self.manifest.files else None

    @property
    def verdict(self) -> Path | None:
        """The verdict of the gate that it was added with, or None."""
        return self.folder / VERDICT_FILE if VERDICT_FILE in self.manifest.files else None

    @property
    def card(self) -> Path:
        """Its model card."""
        return self.folder / CARD_FILE

    @property
    def uri(self) -> str:
        """The URI of its detector."""
        scheme, _, path = self.manifest.detector.uri.partition(":")
        return f"{scheme}:{self.folder / path}"


def content_sha256(
    detector: DetectorFacts, parents: tuple[str, ...], data: DataFacts | None, files: Mapping[str, str]
) -> str:
    """Return the SHA-256 that a version is named by; who added it, and when, is not in it."""
    content: Any = msgspec.to_builtins([detector, parents, data, dict(files)])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def files_in(folder: Path) -> list[str]:
    """Return the paths of all files in a version but those that describe it. Raises RegistryError for links."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise RegistryError(f"{path}: is no regular file")
        if path.is_file() and name not in (VERSION_FILE, SIGNATURE_FILE):
            found.append(name)
    return found


def read_version(folder: Path) -> Version:
    """Read the version.json of a version, without its signature and without its files; see `verify_version`.

    Raises RegistryError naming file, field and value.
    """
    return Version(folder, _parsed(_bytes_of(folder / VERSION_FILE), folder))


def verify_version(folder: Path, keys: Path) -> Version:
    """Return a version of which every byte is as it was signed by a trusted key.

    keys: folder of the trusted keys. Raises RegistryError for the first thing that differs: no or a wrong signature, a
    changed, missing or added file.
    """
    content = _bytes_of(folder / VERSION_FILE)
    check_signature(content, folder / SIGNATURE_FILE, keys)
    version = Version(folder, _parsed(content, folder))
    found = files_in(folder)
    listed = version.manifest.files
    for name in sorted(listed.keys() - set(found)):
        raise RegistryError(f"{folder / name}: is missing")
    for name in found:
        if name not in listed:
            raise RegistryError(f"{folder / name}: does not belong to the version")
        if (digest := _sha256_of(folder / name)) != listed[name]:
            raise RegistryError(
                f"{folder / name}: was changed: SHA-256 is {digest}, {VERSION_FILE} says {listed[name]}"
            )
    return version


def sync(folder: Path) -> None:
    """Wait until all of a folder is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _sha256_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RegistryError(f"{path}: is missing") from None
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}") from error


def _parsed(content: bytes, folder: Path) -> Manifest:
    path = folder / VERSION_FILE
    try:
        manifest = convert_json(parse_json(content), Manifest)
    except ValueError as error:
        raise RegistryError(f"{path}: {error}") from error
    if manifest.format != FORMAT:
        raise RegistryError(f"{path}: format: expected {FORMAT!r}, got {manifest.format!r}")
    expected = content_sha256(manifest.detector, manifest.parents, manifest.data, manifest.files)
    if manifest.sha256 != expected:
        raise RegistryError(f"{path}: sha256: its content gives {expected}, it says {manifest.sha256}")
    if manifest.name != folder.name or not manifest.name.endswith(f"-{expected[:HASH_DIGITS]}"):
        raise RegistryError(
            f"{path}: name: expected that of the folder, {folder.name}, with the first digits of the hash, "
            f"{expected[:HASH_DIGITS]}, got {manifest.name}"
        )
    return manifest
