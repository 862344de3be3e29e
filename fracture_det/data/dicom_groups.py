"""Which DICOM radiographs are of one patient or one study, by keyed hashes instead of what would name a patient."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fracture_det.data.image_info import ImageInfo
from fracture_det.data.metadata import Metadata
from fracture_det.data.records import Problem
from fracture_det.structures.dicom import MIN_SECRET_BYTES
from fracture_det.structures.radiograph import read_dicom_file

SECRET_VARIABLE = "FRACTURE_SITE_SECRET"
OWN_SECRET = (
    "Groups of DICOM files are hashes by a secret of this run; "
    f"with {SECRET_VARIABLE} set they are the same in every run."
)


@dataclass(frozen=True)
class DicomGroups:
    """What DICOM files say of the groups of images.

    patients: file name -> hash of its patient, or of its study where it has no Patient ID. clusters: the files of each
    patient, study and series. anatomies: file name -> Body Part Examined. complete: whether all images are DICOM files.
    """

    patients: dict[str, str] = field(default_factory=dict)
    clusters: tuple[tuple[str, ...], ...] = ()
    anatomies: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = False

    def added_to(self, metadata: Metadata) -> Metadata:
        """Return the metadata with what the files say; what a table says of a file wins."""
        patients = metadata.patients
        if self.complete or patients is not None:
            patients = {**self.patients, **(patients or {})}
        return replace(
            metadata,
            patients=patients,
            anatomies={**self.anatomies, **metadata.anatomies},
            problems=(*metadata.problems, *self.problems),
        )


def read_dicom_groups(images: Path, infos: Sequence[ImageInfo], *, only_dicom: bool = False) -> DicomGroups:
    """Read the headers of the DICOM files among the images that can be read.

    The hashes are by the secret in FRACTURE_SITE_SECRET, or one of this run. Raises ValueError for a secret that is too
    short, or with `only_dicom` for an image that is no DICOM file.
    """
    readable = [info for info in infos if info.error is None]
    names = [info.file_name for info in readable if info.is_dicom]
    other = next((info.file_name for info in readable if not info.is_dicom), None)
    if only_dicom and other is not None:
        raise ValueError(f"--format dicom: {other} is no DICOM file")
    if not names:
        return DicomGroups()
    stated = os.environ.get(SECRET_VARIABLE, "")
    secret = stated.encode() or secrets.token_bytes(32)
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{SECRET_VARIABLE}: expected at least {MIN_SECRET_BYTES} characters, got {len(secret)}")
    patients: dict[str, str] = {}
    anatomies: dict[str, str] = {}
    members: dict[str, list[str]] = defaultdict(list)
    problems: list[Problem] = []
    for name in names:
        file = read_dicom_file(images / name, secret=secret)
        keys = [key for key in (file.patient_key, file.study_key, file.series_key) if key is not None]
        if keys:
            patients[name] = keys[0]
        if file.patient_key is None:
            grouped = "grouped by its study" if keys else "a group of its own"
            problems.append(Problem(name, "no_patient_id", f"its DICOM header has no Patient ID; {grouped}"))
        if file.body_part is not None:
            anatomies[name] = file.body_part.lower()
        for key in keys:
            members[key].append(name)
    return DicomGroups(
        patients,
        tuple(tuple(found) for found in members.values() if len(found) > 1),
        anatomies,
        tuple(problems),
        () if stated else (OWN_SECRET,),
        complete=len(names) == len(readable),
    )
