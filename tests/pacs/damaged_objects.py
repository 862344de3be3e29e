"""Damaged objects by C-STORE to a node that is a process of its own, and what became of each of them."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import subprocess
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import FileMetaDataset, dcmread
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pynetdicom import AE, _config

from tests.pacs.films import DX
from tests.pacs.programs import RunningNode, free_port, listens, program, wait_for
from tests.structures.dicom_damage import DAMAGES, whole_files
from webapp.pacs.transfer_syntaxes import TRANSFER_SYNTAXES

# Of `whole_files`; of the same length, so that they can be replaced in the encoded bytes.
INSTANCE, STUDY = (f"1.2.826.0.1.3680043.8.498.{number}" for number in (1, 2))
# Damages spare what is before the dataset in a file, and so nothing of an object that has no file.
PREFIX = bytes(132)
ALL_OUTPUTS = ("sr", "gsps", "sc", "pdf")
CONFIG = """
quiet_s = 0.2
first_pause_s = 0.5
longest_pause_s = 2

[[peers]]
ae_title = "STORESCU"
address = "127.0.0.1"
answer_to = ["archive", "fhir"]

[[destinations]]
kind = "dicom"
name = "archive"
host = "127.0.0.1"
port = {archive}
ae_title = "ARCHIVE"
outputs = {outputs}

[[destinations]]
kind = "fhir"
name = "fhir"
folder = "{fhir}"
"""


@dataclass(frozen=True)
class DamagedObject:
    """A damaged dataset in a file with sound file meta information, as it is sent."""

    coding: str
    damage: str
    uid: str
    content: bytes


@dataclass
class Outcome:
    """What became of objects: statuses (None: no answer) and, of those that were taken, what was said of them."""

    statuses: Counter[int | None] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    unaccounted: list[str] = field(default_factory=list)


def damaged_objects(count: int, *, seed: int, folder: Path) -> Iterator[DamagedObject]:
    """Yield `count` objects of every coding, each with UIDs of its own, damaged in turn in every way."""
    films = {coding: _split(content) for coding, content in whole_files(folder, coded=True).items()}
    kinds = [(coding, damage) for damage in DAMAGES for coding in films]
    for number in range(count):
        coding, damage = kinds[number % len(kinds)]
        syntax, dataset = films[coding]
        instance, study = (f"1.2.826.0.1.{kind}.{10**12 + number}" for kind in (7, 8))
        dataset = _renamed(dataset, syntax, {INSTANCE: instance, STUDY: study})
        harmed = DAMAGES[damage](bytearray(PREFIX + dataset), np.random.default_rng((seed, number)))
        yield DamagedObject(coding, damage, instance, _meta(instance, syntax) + (harmed[len(PREFIX) :] or b"\0\0"))


def _split(content: bytes) -> tuple[UID, bytes]:
    """Return the transfer syntax and the encoded dataset of a file."""
    length = int.from_bytes(content[140:144], "little")
    meta = dcmread(io.BytesIO(content), stop_before_pixels=True).file_meta
    return meta.TransferSyntaxUID, content[144 + length :]


def _renamed(dataset: bytes, syntax: UID, names: dict[str, str]) -> bytes:
    is_deflated = syntax == DeflatedExplicitVRLittleEndian
    if is_deflated:
        dataset = zlib.decompress(dataset, -zlib.MAX_WBITS)
    for old, new in names.items():
        assert len(old) == len(new)
        assert dataset.count(old.encode()) >= 1
        dataset = dataset.replace(old.encode(), new.encode())
    if is_deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        dataset = packer.compress(dataset) + packer.flush()
        dataset += b"\0" * (len(dataset) % 2)
    return dataset


def _meta(instance: str, syntax: UID) -> bytes:
    meta, buffer = FileMetaDataset(), io.BytesIO()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = DX, instance, syntax
    buffer.write(bytes(128) + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return buffer.getvalue()


def send_objects(
    port: int, objects: Sequence[DamagedObject], folder: Path, *, associations: int
) -> dict[str, int | None]:
    """Send objects as they are, each once, at several associations; return the status of each, None without one."""
    statuses: dict[str, int | None] = {}

    def send(number: int) -> None:
        association = None
        path = folder / f"{number}.dcm"
        for one in objects[number::associations]:
            path.write_bytes(one.content)
            if association is None or not association.is_established:
                association = associate(port)
            statuses[one.uid] = association.send_c_store(path).get("Status")
        if association is not None and association.is_established:
            association.release()

    with sending_files_as_they_are():
        threads = [threading.Thread(target=send, args=(number,)) for number in range(associations)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return statuses


@contextlib.contextmanager
def sending_files_as_they_are() -> Iterator[None]:
    """Have pynetdicom send the bytes of a file without reading them as DICOM."""
    former, _config.STORE_SEND_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET, True
    try:
        yield
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = former


def associate(port: int):
    """Open an association with a node for DX in every transfer syntax that it takes."""
    ae = AE(ae_title="STORESCU")
    ae.dimse_timeout = ae.network_timeout = 600
    for syntax in TRANSFER_SYNTAXES:
        ae.add_requested_context(DX, syntax)
    association = ae.associate("127.0.0.1", port, ae_title="FRACTURE_DET")
    assert association.is_established
    return association


@contextlib.contextmanager
def node_with_archive(folder: Path, outputs: Sequence[str] = ALL_OUTPUTS) -> Iterator[RunningNode]:
    """Run a node as a process, with the bright-rectangles detector, dcmtk's storescp as archive, and a FHIR folder."""
    port = free_port()
    archive = subprocess.Popen(
        [program("storescp"), "--ignore", "--fork", "-aet", "ARCHIVE", str(port)], stderr=subprocess.DEVNULL
    )
    config = CONFIG.format(archive=port, fhir=folder / "fhir", outputs=json.dumps(outputs))
    node = RunningNode(folder / "node", config, module="tests.pacs.bright_node", FRACTURE_DETECTOR="bright:0")
    try:
        wait_for(lambda: listens(port), "storescp")
        node.start()
        yield node
    finally:
        node.stop()
        archive.terminate()
        archive.wait(30)


def is_idle(node: RunningNode) -> bool:
    """Whether nothing waits in the queue of a node."""
    chosen = (
        "SELECT count(*) FROM pacs_objects WHERE state = 'waiting'",
        "SELECT count(*) FROM pacs_studies WHERE due_at IS NOT NULL",
        "SELECT count(*) FROM pacs_deliveries WHERE state = 'waiting'",
    )
    return not any(_rows(node, one)[0][0] for one in chosen)


def account(node: RunningNode, statuses: dict[str, int | None]) -> Outcome:
    """Return what became of every object, once the node is idle.

    Unaccounted is what was answered with success and is neither answered, left out because it is no image, nor in the
    list of what was given up with a sentence; and what was not answered with success and is in the queue.
    """
    outcome = Outcome(Counter(statuses.values()))
    letters = node.command("status", check=False).stdout
    rows = _rows(
        node,
        "SELECT o.sop_instance_uid, o.id, o.state, o.result, o.problem, s.id, s.version FROM pacs_objects o"
        " JOIN pacs_studies s ON s.id = o.study_id",
    )
    delivered = {
        (study, destination)
        for study, destination in _rows(node, "SELECT study_id, destination FROM pacs_deliveries WHERE state = 'sent'")
    }
    for uid, identifier, state, result, problem, study, version in rows:
        said = json.loads(result) if result else {}
        what = said.get("status", state)
        sentence = said.get("sentence") or said.get("finding") or problem
        answered = version > 0 and {(study, "archive"), (study, "fhir")} <= delivered
        is_accounted = sentence and (
            answered or what == "ignored" or any(f"given up: {name}  " in letters for name in (identifier, study))
        )
        if statuses.get(uid) != 0 or not is_accounted:
            outcome.unaccounted.append(f"{uid}: {statuses.get(uid)}, {what}, {sentence}, version {version}")
        outcome.said[f"{what}: {said.get('reason') or said.get('finding') or problem}"] += 1
    taken = {row[0] for row in rows}
    outcome.unaccounted += [
        f"{uid}: success, not in the queue" for uid, one in statuses.items() if one == 0 and uid not in taken
    ]
    return outcome


def _rows(node: RunningNode, chosen: str) -> list[tuple]:
    [database] = (node.folder / "data").glob("*.sqlite3")
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(chosen).fetchall()


def memory_kb(node: RunningNode, name: str) -> int:
    """Return VmRSS (now) or VmHWM (the most) of a node, in KB."""
    status = Path(f"/proc/{node.pid}/status").read_text(encoding="ascii")
    return int(status.partition(f"{name}:")[2].split()[0])
