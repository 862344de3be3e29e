"""The whole way with real programs: storescu, the node with the shipped detector, Orthanc, an MLLP server; kills."""

import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from pydicom import dcmread

from tests.pacs.films import dicom_object, drawn_pixels, encoded, example_pixels, write
from tests.pacs.programs import MllpServer, Orthanc, RunningNode, program, storescu, wait_for

pytestmark = pytest.mark.slow

STUDIES, ASSOCIATIONS = 100, 8
# The detector analyses one radiograph after the other; two slow processors that do other work need minutes.
ALL_ANSWERED_S = 1200
CONFIG = """
quiet_s = 0.5
first_pause_s = 0.5
longest_pause_s = 2

[[peers]]
ae_title = "STORESCU"
address = "127.0.0.1"
answer_to = ["archive", "ris"]

[[destinations]]
kind = "dicom"
name = "archive"
host = "127.0.0.1"
port = {archive}
ae_title = "ORTHANC"

[[destinations]]
kind = "hl7"
name = "ris"
host = "127.0.0.1"
port = {ris}
"""


@pytest.fixture
def beside(tmp_path):
    """An Orthanc and an MLLP server."""
    orthanc, mllp = Orthanc(tmp_path / "orthanc"), MllpServer()
    yield orthanc, mllp
    orthanc.close()
    mllp.close()


@pytest.fixture
def node(beside, tmp_path):
    orthanc, mllp = beside
    running = RunningNode(tmp_path / "node", CONFIG.format(archive=orthanc.port, ris=mllp.port))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """One radiograph for each study: a held-out film, and drawn ones."""
    folder = tmp_path_factory.mktemp("films")
    pixels = [example_pixels(), *(drawn_pixels(seed) for seed in range(STUDIES - 1))]
    return [write(dicom_object(one, number), folder / f"{number}.dcm") for number, one in enumerate(pixels, start=1)]


def send_all(port, films):
    """Send every film, at several associations; return the threads."""

    def send(share):
        for film in share:  # again until it is taken, as a modality does
            wait_for(
                lambda film=film: storescu(port, [film], calling="STORESCU", check=False).returncode == 0, "a C-STORE"
            )

    threads = [threading.Thread(target=send, args=(films[number::ASSOCIATIONS],)) for number in range(ASSOCIATIONS)]
    for thread in threads:
        thread.start()
    return threads


def reported(mllp):
    """Return the control IDs of the messages that came: one for each study, however often it was sent."""
    return {message.split("|")[9] for message in mllp.messages}


def is_answered(orthanc, mllp, films):
    if len(reported(mllp)) != len(films):
        return False  # before Orthanc, which has better to do, is asked about hundreds of series
    answers = orthanc.answers()
    return len(answers) == len(films) and all(len(objects) == 3 for objects in answers.values())


def check_answers(orthanc, mllp, films):
    """Each study has exactly one SR, one GSPS and one SC, with its patient, and one message."""
    time.sleep(5)  # anything that would come twice
    answers = orthanc.answers()
    for film in films:
        source = dcmread(film)
        assert [kind for kind, _ in answers[source.StudyInstanceUID]] == ["OT", "PR", "SR"]
        patient = orthanc.post(
            "/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": source.StudyInstanceUID}}
        )
        assert len(patient) == 1
        assert orthanc.get(f"/studies/{patient[0]}")["PatientMainDicomTags"]["PatientID"] == source.PatientID
    by_order = Counter()
    for control, order in {(line.split("|")[9], line.split("OBR|1|")[1].split("|")[0]) for line in mllp.messages}:
        by_order[order] += 1
        assert control
    assert by_order == {str(dcmread(film).AccessionNumber): 1 for film in films}


def test_every_study_is_answered_once(node, beside, films, tmp_path):
    orthanc, mllp = beside
    for thread in send_all(node.port, films):
        thread.join()
    wait_for(lambda: is_answered(orthanc, mllp, films), "all answers", ALL_ANSWERED_S)
    check_answers(orthanc, mllp, films)
    assert len(mllp.messages) == STUDIES  # without a kill not even twice
    for objects in list(orthanc.answers().values())[::10]:
        for kind, instance in objects:
            path = tmp_path / f"{kind}.dcm"
            path.write_bytes(orthanc.file(instance))
            done = subprocess.run([program("dciodvfy"), "-new", path], capture_output=True, text=True, check=False)
            assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == [], kind
    said = node.command("status").stdout
    assert f"studies: {STUDIES} answered, 0 to be answered" in said
    log = node.log.read_text()
    for secret in ("PID-", "ller", "ACC1", "2.25."):
        assert secret not in log + said
    names = " ".join(path.name for path in (node.folder / "data").rglob("*"))
    assert "PID" not in names
    assert "2.25." not in names
    # What is sent again is answered with success, and nothing else happens.
    storescu(node.port, films, calling="STORESCU")
    check_answers(orthanc, mllp, films)


def test_with_the_node_killed_twice_every_study_is_answered_once(node, beside, films):
    orthanc, mllp = beside
    threads = send_all(node.port, films[:30])
    time.sleep(1.0)
    node.kill()  # while objects come
    threads += send_all(node.port, films[30:])
    node.start()
    wait_for(lambda: len(reported(mllp)) >= 20, "some answers", 240)
    node.kill()  # while outputs go
    node.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: is_answered(orthanc, mllp, films), "all answers", ALL_ANSWERED_S)
    check_answers(orthanc, mllp, films)
    done = node.command("status")
    assert "0 given up" in done.stdout.splitlines()[0]
    verified = subprocess.run(
        [sys.executable, "-m", "webapp.admin", "verify-audit"],
        env=node.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_a_correction_by_the_command_line(node, beside, films):
    orthanc, mllp = beside
    storescu(node.port, films[:1], calling="STORESCU")
    study = dcmread(films[0]).StudyInstanceUID
    wait_for(lambda: len(orthanc.answers().get(study, ())) == 3 and mllp.messages, "the answer")
    instance = str(dcmread(films[0]).SOPInstanceUID)
    node.command("correct", "--object", instance, "--author", "anna", "--wrong", "1", "--no-fracture")
    wait_for(lambda: len(orthanc.answers()[study]) == 6 and len(mllp.messages) == 2, "the corrected answer")
    assert "|RAD|C" in mllp.messages[1]
    refused = node.command("correct", "--object", "1.2.3", "--author", "anna", check=False)
    assert refused.returncode == 1
    assert "--object names no analysed image" in refused.stderr
    assert encoded(dcmread(films[0]))
