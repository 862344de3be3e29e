"""Objects that come by C-STORE, sent by dcmtk: what is taken is on the disk, and what is not is refused by name."""

import contextlib
import io
import os
import random
import resource
import socket
import struct
import subprocess
import threading
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from tests.pacs.conftest import plate
from tests.pacs.films import CT, DX, dicom_object, encoded, write
from tests.pacs.programs import program, storescu, wait_for
from webapp.pacs.headers import source_header
from webapp.pacs.objects import MAX_HEADER_BYTES, inspect
from webapp.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def send(running, ds, **options):
    """Send one dataset by pynetdicom; return the status, None without an answer."""
    ae = AE(ae_title=options.pop("title", "STORESCU"))
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", running.port, ae_title="FRACTURE_DET", **options)
    assert association.is_established
    status = association.send_c_store(ds)
    if association.is_established:
        association.release()
    return status.get("Status")


def dataset_bytes(ds):
    """Return an encoded dataset without file meta information: it begins with its first element."""
    content = encoded(ds)
    return content[content.index(b"\x08\x00\x05\x00") :]


def send_bytes(running, sop_instance_uid, content):
    """Send bytes as the dataset of a DX object, whatever they are; return the status."""
    ae = AE(ae_title="STORESCU")
    ae.dimse_timeout = 30
    ae.add_requested_context(DX, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", running.port, ae_title="FRACTURE_DET")
    assert association.is_established
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = DX, sop_instance_uid
    request.DataSet = io.BytesIO(content)
    association._reactor_checkpoint.clear()  # as send_c_store does: the answer is ours
    while not association._is_paused:
        time.sleep(0.01)
    association.dimse.send_msg(request, next(iter(association._accepted_cx)))
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert answer is not None, "no answer"
    association.release()
    return answer.Status


@contextlib.contextmanager
def watching(look):
    """Call `look` again and again in a thread of its own; what it looks at may vanish meanwhile."""
    done = threading.Event()

    def watch():
        while not done.wait(0.005):
            with contextlib.suppress(OSError):
                look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_verification_answers(start_node):
    running = start_node()
    echo = [program("echoscu"), "-aet", "STORESCU", "-aec", "FRACTURE_DET", "127.0.0.1", str(running.port)]
    assert subprocess.run(echo, check=False, timeout=60).returncode == 0


def test_an_object_is_in_the_queue_and_in_the_audit_log_before_it_is_answered(start_node, tmp_path):
    running = start_node(quiet_s=3600)
    storescu(running.port, [write(dicom_object(plate()), tmp_path / "a.dcm")], calling="STORESCU")
    assert sum(running.status().objects.values()) == 1
    [known] = running.queue.spool._objects.iterdir()
    assert dcmread(known).PatientID == "PID-1"
    assert "PID" not in known.name
    assert running.node.store.audit.verify().lines >= 1


@pytest.mark.parametrize(
    ("peer", "calling", "called"),
    [
        ({"ae_title": "STORESCU", "address": "127.0.0.1"}, "SOMEBODY", "FRACTURE_DET"),
        ({"ae_title": "STORESCU", "address": "10.1.2.0/24"}, "STORESCU", "FRACTURE_DET"),
        ({"ae_title": "STORESCU", "address": "127.0.0.1"}, "STORESCU", "ANOTHER"),
    ],
)
def test_only_peers_of_the_configuration_may_associate(start_node, tmp_path, peer, calling, called):
    running = start_node(peers=[{**peer, "answer_to": []}])
    done = storescu(
        running.port, [write(dicom_object(plate()), tmp_path / "a.dcm")], calling=calling, called=called, check=False
    )
    assert done.returncode != 0
    assert sum(running.status().objects.values()) == 0
    # And it still answers who may.
    if called == "FRACTURE_DET" and peer["address"] == "127.0.0.1":
        storescu(running.port, [tmp_path / "a.dcm"], calling="STORESCU")


def test_the_same_object_twice_is_one_object_and_one_answer(start_node, tmp_path, folder_destination):
    running = start_node(destinations=[folder_destination])
    film = write(dicom_object(plate()), tmp_path / "a.dcm")
    storescu(running.port, [film, film], calling="STORESCU")
    running.settle()
    storescu(running.port, [film], calling="STORESCU")
    time.sleep(1)
    running.settle()
    assert running.status().objects == {"waiting": 0, "done": 1, "failed": 0}
    assert len(list(folder_destination["folder"].iterdir())) == 1


def test_another_object_with_a_known_uid_is_refused(start_node):
    running = start_node()
    assert send(running, dicom_object(plate())) == 0x0000
    assert send(running, dicom_object(plate(), PatientID="ANOTHER")) == 0x0111


def test_an_object_whose_uids_are_not_those_of_the_request_is_refused(start_node):
    running = start_node()
    assert send_bytes(running, "1.2.3.4", dataset_bytes(dicom_object(plate()))) == 0xA900
    assert sum(running.status().objects.values()) == 0


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID"])
def test_an_object_whose_uids_are_none_is_refused(start_node, keyword):
    running = start_node()
    ds = dicom_object(plate())
    content = dataset_bytes(ds).replace(ds[keyword].value.encode(), b"x" * len(ds[keyword].value))
    assert send_bytes(running, ds.SOPInstanceUID, content) == 0xC000
    assert sum(running.status().objects.values()) == 0


def test_a_deflated_object_is_unfolded_no_further_than_a_header(tmp_path):
    ds = dicom_object(plate())
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(ds, tmp_path / "bomb.dcm")
    whole = path.read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    content = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 1 << 30)
    packed = packer.compress(content[: content.index(b"\xe0\x7f\x10\0")] + pixels)
    packed += b"".join(packer.compress(bytes(1 << 20)) for _ in range(1_024)) + packer.flush()
    path.write_bytes(whole[:start] + packed)
    tracemalloc.start()
    received, header = inspect(path)
    copied = source_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (received.sop_instance_uid, header.Rows, copied.PatientID) == (ds.SOPInstanceUID, 120, "PID-1")
    assert peak < 4 * MAX_HEADER_BYTES


def test_an_association_that_is_cut_in_the_middle_leaves_nothing(start_node):
    running = start_node()
    ds = dicom_object(np.zeros((2000, 2000), np.uint8))
    ae = AE(ae_title="STORESCU")
    ae.add_requested_context(DX, ds.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", running.port, ae_title="FRACTURE_DET")
    sent = []

    def cut(_event):
        sent.append(1)
        if len(sent) == 3:
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    association.bind(evt.EVT_DATA_SENT, cut)
    assert "Status" not in association.send_c_store(ds)
    assert len(sent) >= 3
    assert sum(running.status().objects.values()) == 0
    wait_for(lambda: not list(running.queue.spool.incoming.iterdir()), "no file of what was cut")
    # The same object, sent again, is new.
    assert send(running, ds) == 0x0000
    assert sum(running.status().objects.values()) == 1


def test_an_object_over_the_limit_is_refused_and_takes_neither_memory_nor_disk(start_node):
    running = start_node(max_object_mb=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
        announced = 0xC0000000  # 3 GB in one PDU
        connection.sendall(struct.pack(">BBL", 4, 0, announced))
        connection.settimeout(30)
        with contextlib.suppress(OSError):
            while chunk := connection.recv(100):
                assert chunk
    spool, sizes = running.queue.spool, []
    ds = dicom_object(np.random.default_rng(0).integers(0, 255, (6000, 6000), dtype=np.uint8))
    with watching(lambda: sizes.append(sum(path.stat().st_size for path in spool.folder.rglob("*.*")))):
        assert send(running, ds) == 0xA701
    assert max(sizes) < 8_000_000  # the limit, and a PDU
    wait_for(lambda: not [*spool._objects.iterdir(), *spool.incoming.iterdir()], "an empty spool")
    assert sum(running.status().objects.values()) == 0
    text = running.node.metrics.text().decode()
    assert 'fracture_pacs_refused_total{reason="over the limit"} 2.0' in text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KB; of the sender in this process
    assert send(running, dicom_object(plate())) == 0x0000


def test_the_time_that_taking_an_object_takes_is_no_silence_of_the_peer(start_node, monkeypatch):
    running = start_node(idle_s=1)
    receive = running.queue.receive

    def slow(*arguments, **values):
        time.sleep(2.5)
        return receive(*arguments, **values)

    monkeypatch.setattr(running.queue, "receive", slow)
    ae = AE(ae_title="STORESCU")
    ae.add_requested_context(DX, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", running.port, ae_title="FRACTURE_DET")
    assert association.send_c_store(dicom_object(plate(), 1)).Status == 0
    time.sleep(0.5)  # in which it would be aborted
    assert association.is_established
    assert association.send_c_store(dicom_object(plate(), 2)).Status == 0
    association.release()


@pytest.mark.parametrize(
    "sent", [b"", b"\x01\x00\x00\x00\x01", b"\x04\x00\x00\x00\x10\x00abc", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_a_client_that_stops_talking_holds_up_nobody_and_is_closed(start_node, sent):
    running = start_node(idle_s=2)
    with socket.create_connection(("127.0.0.1", running.port), 30) as silent:
        silent.sendall(sent)
        assert send(running, dicom_object(plate())) == 0x0000
        silent.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            while silent.recv(100):
                pass


def test_connections_that_close_without_a_word_take_no_place(start_node):
    running = start_node(idle_s=3600, max_associations=2)
    for _ in range(5):  # as a TCP health check does
        socket.create_connection(("127.0.0.1", running.port), 30).close()
    echo = [program("echoscu"), "-aet", "STORESCU", "-aec", "FRACTURE_DET", "127.0.0.1", str(running.port)]
    wait_for(lambda: subprocess.run(echo, check=False, timeout=60).returncode == 0, "a free place", 60)


def test_strangers_take_no_place_however_silent_they_are(start_node):
    running = start_node(
        idle_s=3600, max_associations=2, peers=[{"ae_title": "STORESCU", "address": "127.0.0.1", "answer_to": []}]
    )
    with contextlib.ExitStack() as opened:
        for _ in range(5):
            place = ("127.0.0.1", running.port)
            opened.enter_context(socket.create_connection(place, 30, source_address=("127.0.0.2", 0)))
        assert send(running, dicom_object(plate())) == 0x0000


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_objects_and_recovers(start_node, small_disk, folder_destination):
    running = start_node(settings=Settings(data_dir=small_disk / "data"), destinations=[folder_destination])
    filler = small_disk / "filler"
    size = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"x" * (size - 100_000))
    large = dicom_object(np.zeros((2000, 1000), np.uint8), 1)  # 2 MB: the disk is full while it comes
    assert send(running, large) == 0xA700
    assert send(running, dicom_object(np.zeros((300, 330), np.uint8), 2)) in (None, 0xA700)
    assert running.results() == {}
    wait_for(lambda: running.node.problem is not None, "that it says so")
    filler.unlink()
    wait_for(lambda: running.node.problem is None, "that it has recovered")
    assert send(running, dicom_object(plate(), 3)) == 0x0000
    running.settle()
    assert [result["finding"] for result in running.results().values()] == ["likely"]


MUTATIONS = 40


def test_mutated_objects_by_the_network_neither_crash_nor_hang_it(start_node, folder_destination, tmp_path):
    """Bytes of the dataset are changed after it was encoded, as a broken modality would send them."""
    running = start_node(destinations=[folder_destination])
    chance = random.Random(7)
    original = dataset_bytes(dicom_object(plate()))
    statuses = []
    for _number in range(MUTATIONS):
        content = bytearray(original)
        kind = chance.randrange(4)
        for _ in range(chance.randrange(1, 12)):
            at = chance.randrange(min(len(content), 1500) if kind else len(content))
            content[at] = chance.randrange(256)
        if kind == 3:
            content = content[: chance.randrange(10, len(content))]
        statuses.append(send_bytes(running, dicom_object(plate()).SOPInstanceUID, bytes(content)))
    assert set(statuses) <= {0x0000, 0x0111, 0xA900, 0xC000}
    assert 0xC000 in statuses
    sound = dicom_object(plate(), 2)
    assert send(running, sound) == 0x0000
    wait_for(lambda: sound.SOPInstanceUID in running.results(), "the sound object")
    assert running.results()[sound.SOPInstanceUID]["finding"] == "likely"
    assert running.node.problem is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"BodyPartExamined": "CHEST", "AnatomicRegionSequence": []}, ("not analysed", "other_body_part")),
        ({"SpecificCharacterSet": "ISO 2022 IR 87", "PatientName": b"\xff\xfe\x1b$"}, ("analysed", "")),
        ({"WindowWidth": None, "WindowCenter": None}, ("analysed", "")),
        ({"PatientSex": None, "StudyDate": None, "AccessionNumber": None}, ("analysed", "")),
        ({"SamplesPerPixel": None}, ("analysed", "")),
    ],
)
def test_what_is_said_of_an_object(start_node, folder_destination, values, said):
    running = start_node(destinations=[folder_destination])
    ds = dicom_object(plate(), **values)
    ds.add_new(0x00091010, "LO", "private")  # without its creator
    assert send(running, ds) == 0x0000
    running.settle()
    result = running.results()[ds.SOPInstanceUID]
    assert (result["status"], result["reason"]) == said


def test_a_ct_is_taken_and_not_analysed(start_node, folder_destination):
    running = start_node(destinations=[folder_destination])
    ds = dicom_object(plate(), sop_class=CT, modality="CT")
    assert send(running, ds) == 0x0000
    running.settle()
    result = running.results()[ds.SOPInstanceUID]
    assert (result["status"], result["finding"]) == ("not analysed", "")
    [answer] = folder_destination["folder"].iterdir()
    text = answer.read_text(encoding="utf-8")
    assert "not a radiograph" in text
    assert "No fracture" not in text


def test_in_silent_mode_a_ct_is_not_answered(start_node, folder_destination):
    running = start_node(destinations=[folder_destination], unsuitable="silent")
    ds = dicom_object(plate(), sop_class=CT, modality="CT")
    assert send(running, ds) == 0x0000
    wait_for(lambda: running.status().studies_due == 0 and running.results(), "the study")
    assert running.status().studies_answered == 0


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_objects_are_analysed_in_their_transfer_syntax(start_node, folder_destination, syntax):
    running = start_node(destinations=[folder_destination])
    ds = dicom_object(plate())
    ds.compress(syntax)
    assert send(running, ds) == 0x0000
    running.settle()
    assert running.results()[ds.SOPInstanceUID]["finding"] == "likely"
