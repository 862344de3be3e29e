"""Answers reach their destinations exactly once, whatever ends in between; what cannot be delivered is listed."""

import json
import time

import numpy as np
import pytest
from sqlalchemy import select

from fracture_det.inference.service import DetectorFailed
from fracture_det.structures.readings import Reading
from tests.pacs.conftest import plate
from tests.pacs.films import dicom_object, write
from tests.pacs.programs import MllpServer, free_port, program, storescu, wait_for
from tests.pacs.test_storage import send, watching
from webapp.store.models import PacsStudyRow

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def dicom_destination(port, **values):
    return {"kind": "dicom", "name": "archive", "host": "127.0.0.1", "port": port, "ae_title": "ARCHIVE", **values}


def hl7_destination(port):
    return {"kind": "hl7", "name": "ris", "host": "127.0.0.1", "port": port}


@pytest.fixture
def storescp(tmp_path):
    """Return a function that starts dcmtk's storescp on a port and returns the folder in which objects appear."""
    import subprocess

    running = []

    def start(port):
        folder = tmp_path / "received"
        folder.mkdir(exist_ok=True)
        command = [program("storescp"), "-od", str(folder), "-aet", "ARCHIVE", "+xa", str(port)]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return folder

    yield start
    for process in running:
        process.terminate()
        process.wait(30)


def test_a_destination_that_is_away_gets_everything_when_it_is_back(start_node, storescp):
    port = free_port()
    running = start_node(destinations=[dicom_destination(port)])
    for number in range(3):
        assert send(running, dicom_object(plate(), number)) == 0
    wait_for(lambda: running.status().studies_answered == 3, "answers")
    time.sleep(1)
    assert running.status().deliveries == {("archive", "waiting"): 9}
    folder = storescp(port)
    running.settle(3)
    assert running.status().deliveries == {("archive", "sent"): 9}
    assert len(list(folder.iterdir())) == 9  # SR, GSPS and SC of each
    assert list(running.queue.spool._outbox.iterdir()) == []


def test_a_destination_that_refuses_is_tried_a_few_times_and_listed(start_node, tmp_path):
    server = MllpServer()
    server.code = "AR"
    running = start_node(destinations=[hl7_destination(server.port)])
    assert send(running, dicom_object(plate())) == 0
    wait_for(lambda: running.node.store.pacs_status.dead_letters(), "a dead letter")
    [letter] = running.node.store.pacs_status.dead_letters()
    assert (letter.what, letter.problem) == ("hl7 to ris", "acknowledged with AR")
    assert len(server.messages) == letter.attempts == 5
    server.code = "AA"
    assert running.node.store.pacs_status.retry(letter.id, by="test") == 1
    running.settle()
    assert running.node.store.pacs_status.dead_letters() == []
    assert len({message.split("|")[9] for message in server.messages}) == 1
    server.close()


def test_a_destination_that_cannot_be_reached_is_given_up_after_its_time(start_node):
    running = start_node(destinations=[dicom_destination(free_port(), outputs=["sr"])], give_up_hours=1 / 3600)
    assert send(running, dicom_object(plate())) == 0
    wait_for(lambda: running.node.store.pacs_status.dead_letters(), "a dead letter")
    [letter] = running.node.store.pacs_status.dead_letters()
    assert letter.problem == "could not be reached"
    assert letter.attempts >= 2


def test_several_images_of_a_study_have_one_answer_and_a_late_one_a_new_version(start_node, mllp):
    running = start_node(destinations=[hl7_destination(mllp.port)], quiet_s=1.5)
    for number in (1, 2):
        assert send(running, dicom_object(plate(), number, study=1)) == 0
    running.settle()
    assert len(mllp.messages) == 1
    assert mllp.messages[0].count("FINDING^") == 2
    assert "|P|||" in mllp.messages[0]
    assert send(running, dicom_object(plate(5), 3, study=1)) == 0
    wait_for(lambda: len(mllp.messages) == 2, "a second version")
    assert mllp.messages[1].count("FINDING^") == 3
    assert "No fracture seen" in mllp.messages[1]
    assert "|RAD|C" in mllp.messages[1]


def test_a_readers_feedback_sends_a_corrected_version_once(start_node, mllp, folder_destination):
    running = start_node(destinations=[hl7_destination(mllp.port), folder_destination])
    ds = dicom_object(plate())
    assert send(running, ds) == 0
    running.settle()
    prediction = running.node.store.pacs_status.prediction_of(ds.SOPInstanceUID)
    running.node.store.results.save_reading(prediction, Reading({1: "wrong"}, (), True, "", "", 0), author="anna")
    wait_for(lambda: len(mllp.messages) == 2, "a corrected version")
    running.settle()
    assert "|RAD|C" in mllp.messages[1]
    assert "reader: wrong" in mllp.messages[1]
    assert "Reader anna: no fracture." in mllp.messages[1]
    reports = [json.loads(path.read_text("utf-8")) for path in folder_destination["folder"].iterdir()]
    assert sorted(one["entry"][-1]["resource"]["status"] for one in reports) == ["corrected", "preliminary"]
    time.sleep(3)  # longer than feedback is looked for
    assert len(mllp.messages) == 2
    actions = audit_actions(running)
    assert actions.count("feedback") == 1
    assert actions.count("answer") == 2


def test_what_is_settled_is_passed_on_and_a_reading_after_it_is_not(start_node, mllp):
    running = start_node(destinations=[hl7_destination(mllp.port)])
    ds = dicom_object(plate())
    assert send(running, ds) == 0
    running.settle()
    store = running.node.store
    prediction = store.pacs_status.prediction_of(ds.SOPInstanceUID)
    store.results.settle(prediction, Reading({1: "wrong"}, (), True, ""), by="carla")
    wait_for(lambda: len(mllp.messages) == 2, "a corrected version")
    assert "Reader carla: no fracture." in mllp.messages[1]
    said = store.results.save_reading(prediction, Reading({1: "right"}, (), False, ""), author="ben")

    def is_noted():
        with store._database.reading() as session:
            return session.scalar(select(PacsStudyRow.feedback_at)) == said.readings[0].updated_at

    wait_for(is_noted, "that there is nothing new to say")  # or the study would be due for ever
    assert len(mllp.messages) == 2


def audit_actions(running):
    from sqlalchemy import select

    from webapp.store.models import AuditRow

    running.node.store.audit.verify()
    with running.node.store._database.reading() as session:
        return list(session.scalars(select(AuditRow.action).order_by(AuditRow.number)))


def test_every_step_is_in_the_audit_log(start_node, folder_destination):
    running = start_node(destinations=[folder_destination])
    assert send(running, dicom_object(plate())) == 0
    running.settle()
    assert audit_actions(running) == ["receive", "analyse", "answer", "send fhir to fhir"]


def test_a_detector_that_fails_is_said_and_never_no_fracture(start_node, mllp):
    running = start_node(destinations=[hl7_destination(mllp.port)])
    broken = np.dstack([plate()] * 3)
    broken[0, 0] = (255, 0, 0)  # BrightRectangles raises
    without = dict.fromkeys(("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "RescaleType"))
    ds = dicom_object(plate(), PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0, **without)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.PixelData = broken.tobytes()
    assert send(running, ds) == 0
    wait_for(lambda: mllp.messages, "an answer")
    assert "Not analysed: The analysis failed; this says nothing about a fracture." in mllp.messages[0]
    assert "No fracture" not in mllp.messages[0]
    [letter] = running.node.store.pacs_status.dead_letters()
    assert (letter.what, letter.problem) == ("object", "the detector failed")
    assert DetectorFailed.__name__ not in mllp.messages[0]


def test_outputs_that_come_back_are_not_analysed(start_node, folder_destination, storescp, tmp_path):
    port = free_port()
    folder = storescp(port)
    running = start_node(destinations=[dicom_destination(port)])
    assert send(running, dicom_object(plate())) == 0
    running.settle()
    storescu(running.port, folder.iterdir(), calling="STORESCU")
    wait_for(lambda: running.status().objects["done"] == 4, "what came back")
    running.settle()
    statuses = sorted(result["status"] for result in running.results().values())
    assert statuses == ["analysed", "ignored", "ignored", "ignored"]
    assert running.status().deliveries == {("archive", "sent"): 3}


def test_storage_commitment_is_answered(start_node):
    from pydicom import Dataset
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

    reports = []

    def on_report(event):
        reports.append((event.event_type, event.event_information))
        return 0x0000, None

    peer_port = free_port()
    peer = AE(ae_title="STORESCU")
    peer.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    peer.add_requested_context(StorageCommitmentPushModel)
    server = peer.start_server(
        ("127.0.0.1", peer_port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]
    )
    try:
        me = {"ae_title": "STORESCU", "address": "127.0.0.1", "answer_to": [], "commitment_port": peer_port}
        running = start_node(peers=[me])
        held, missing = dicom_object(plate(), 1), dicom_object(plate(), 2)
        assert send(running, held) == 0
        asked = Dataset()
        asked.TransactionUID = "1.2.3"
        asked.ReferencedSOPSequence = []
        for ds in (held, missing):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
            asked.ReferencedSOPSequence.append(item)
        association = peer.associate("127.0.0.1", running.port, ae_title="FRACTURE_DET")
        status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        association.release()
        assert status.Status == 0
        wait_for(lambda: reports, "the outcome")
    finally:
        server.shutdown()
    [(kind, report)] = reports
    assert kind == 2
    assert report.TransactionUID == "1.2.3"
    [committed], [failed] = report.ReferencedSOPSequence, report.FailedSOPSequence
    assert committed.ReferencedSOPInstanceUID == held.SOPInstanceUID
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (missing.SOPInstanceUID, 0x0112)


def test_a_watched_folder(start_node, folder_destination, tmp_path):
    watched = tmp_path / "watched"
    watched.mkdir()
    folders = [{"name": "in", "path": watched, "every_s": 0.2, "answer_to": ["fhir"]}]
    running = start_node(destinations=[folder_destination], folders=folders)
    write(dicom_object(plate()), watched / "one.dcm")
    (watched / "note.txt").write_text("hello")
    with (watched / "long.dcm").open("wb") as file:
        file.truncate(3 * 10**9)  # sparse
    incoming, sizes = running.queue.spool.incoming, [0]
    with watching(lambda: sizes.extend(path.stat().st_size for path in incoming.iterdir())):
        running.settle()
        for name in ("note.txt", "long.dcm"):
            wait_for(lambda name=name: (watched / "refused" / name).exists(), "the file that is none")
    assert max(sizes) < 1_000_000
    assert sorted(path.name for path in watched.iterdir()) == ["refused"]
    assert len(list(folder_destination["folder"].iterdir())) == 1


def test_dicomweb_polls_fetches_and_stores(start_node, orthanc):
    from datetime import date

    url = f"http://127.0.0.1:{orthanc.http_port}/dicom-web"
    ds = dicom_object(plate(), 501, StudyDate=date.today().strftime("%Y%m%d"))
    from tests.pacs.films import encoded

    orthanc.post("/instances", encoded(ds))
    running = start_node(
        destinations=[{"kind": "stow", "name": "archive", "url": url}],
        polls=[{"name": "web", "url": url, "every_s": 1, "answer_to": ["archive"]}],
        peers=[],
    )
    wait_for(lambda: len(orthanc.answers().get(ds.StudyInstanceUID, [])) == 3, "the answer in Orthanc")
    running.settle()
    assert [kind for kind, _ in orthanc.answers()[ds.StudyInstanceUID]] == ["OT", "PR", "SR"]


def test_health_and_metrics_have_no_patient(start_node, folder_destination):
    import urllib.request

    running = start_node(destinations=[folder_destination])
    ds = dicom_object(plate())
    assert send(running, ds) == 0
    running.settle()
    texts = []
    for path in ("healthz", "readyz", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{running.node.http_port}/{path}", timeout=10) as answer:
            texts.append(answer.read().decode())
    assert texts[:2] == ["ok\n", "ready\n"]
    assert 'fracture_pacs_received_total{novelty="new"} 1.0' in texts[2]
    assert 'fracture_pacs_results_total{result="likely"} 1.0' in texts[2]
    for secret in ("PID-1", "ller", "ACC1", ds.SOPInstanceUID, ds.StudyInstanceUID):
        assert secret not in "".join(texts)
