"""What the node sends over TLS: to whom it trusts and who trusts it; to nobody else, and never in silence."""

import json
import re
import subprocess

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from tests.pacs.conftest import plate
from tests.pacs.films import dicom_object, write
from tests.pacs.programs import HttpServer, MllpServer, free_port, listens, program, storescu, wait_for
from tests.pacs.test_tls import keys, options, tls_of
from webapp.pacs.config import Tls
from webapp.pacs.tls import client_context, server_context

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
__all__ = ["keys"]
# What a peer shows, and whose certificates it accepts -> what the list of what was given up says of it. With TLS 1.3 a
# peer refuses after the handshake, and its words may be lost when it closes at once.
REFUSALS = {
    "a stranger's certificate": (
        {"certificate": "stranger", "authority": "authority"},
        r"TLS failed \(certificate verify failed\)",
    ),
    "does not trust us": (
        {"certificate": "peer", "authority": "stranger"},
        # With TLS 1.3 the peer refuses after the handshake; whether its reason still arrives is chance.
        r"TLS failed \(.*(alert|unknown).*\)|could not be reached|did not acknowledge",
    ),
}


def context_of(keys, certificate, authority):
    names = {"certificate": f"{certificate}.pem", "key": f"{certificate}.key", "authority": f"{authority}.pem"}
    return server_context(Tls(**{name: keys / file for name, file in names.items()}))


@pytest.fixture
def servers():
    started = []
    yield started
    for server in started:
        server.close()


def start(kind, servers, port=0, context=None):
    """Return a running server and the destination that leads to it."""
    servers.append(HttpServer(context, port) if kind == "fhir" else MllpServer(port, context))
    place = servers[-1].port
    if kind == "fhir":
        return servers[-1], {"kind": "fhir", "name": "out", "url": f"https://127.0.0.1:{place}/fhir", "tls": True}
    return servers[-1], {"kind": "hl7", "name": "out", "host": "127.0.0.1", "port": place, "tls": True}


def received(server):
    return server.bodies if isinstance(server, HttpServer) else server.messages


@pytest.fixture
def send_film(keys, tmp_path):
    """Return a function that sends a film to a node as a peer with a certificate."""

    def send(running):
        film = write(dicom_object(plate()), tmp_path / "a.dcm")
        storescu(running.port, [film], calling="STORESCU", extra=list(map(str, options(keys, "peer"))))

    return send


@pytest.mark.parametrize("kind", ["fhir", "hl7"])
def test_who_knows_the_authority_gets_the_answer(start_node, keys, servers, send_film, kind):
    server, destination = start(kind, servers, context=context_of(keys, "peer", "authority"))
    running = start_node(destinations=[destination], tls=tls_of(keys, "node"))
    send_film(running)
    running.settle()
    [answer] = received(server)
    assert "Fracture likely" in (answer if isinstance(answer, str) else json.dumps(json.loads(answer)))
    assert running.status().deliveries == {("out", "sent"): 1}


@pytest.mark.parametrize("why", REFUSALS)
@pytest.mark.parametrize("kind", ["fhir", "hl7"])
def test_a_refused_certificate_is_tried_again_then_listed_and_nothing_is_sent(
    start_node, keys, servers, send_film, kind, why
):
    shown, said = REFUSALS[why]
    server, destination = start(kind, servers, context=context_of(keys, **shown))
    running = start_node(destinations=[destination], tls=tls_of(keys, "node"), give_up_hours=1 / 3600)
    send_film(running)
    [letter] = wait_for(running.node.store.pacs_status.dead_letters, "a dead letter")
    assert re.fullmatch(said, letter.problem)
    assert letter.attempts >= 2
    assert received(server) == []
    # With another certificate there, it arrives.
    server.close()
    servers.remove(server)
    server, _ = start(kind, servers, server.port, context_of(keys, "peer", "authority"))
    assert running.node.store.pacs_status.retry(None, by="test") == 1
    running.settle()
    assert len(received(server)) == 1


def test_without_tls_of_the_destination_no_certificate_is_shown(start_node, keys, servers, send_film):
    server, destination = start("fhir", servers, context=context_of(keys, "peer", "authority"))
    plain = {**destination, "tls": False, "authority": keys / "authority.pem"}
    running = start_node(destinations=[plain], tls=tls_of(keys, "node"), give_up_hours=1 / 3600)
    send_film(running)
    [letter] = wait_for(running.node.store.pacs_status.dead_letters, "a dead letter")
    assert re.fullmatch(REFUSALS["does not trust us"][1], letter.problem)
    assert received(server) == []


@pytest.fixture
def storescp(tmp_path):
    """Return a function that starts dcmtk's storescp over TLS; its folder of objects."""
    running = []

    def begin(*more):
        port, folder = free_port(), tmp_path / "received"
        folder.mkdir()
        command = [program("storescp"), "-od", folder, "-aet", "ARCHIVE", "+xa", *more, port]
        running.append(subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL))
        wait_for(lambda: listens(port), "storescp")
        return port, folder

    yield begin
    for process in running:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("who", ["peer", "stranger"])
def test_objects_go_to_an_archive_with_a_certificate_of_the_authority(start_node, keys, storescp, send_film, who):
    port, folder = storescp(*options(keys, who))
    archive = {"kind": "dicom", "name": "out", "host": "127.0.0.1", "port": port, "ae_title": "ARCHIVE", "tls": True}
    running = start_node(destinations=[archive], tls=tls_of(keys, "node"), give_up_hours=1 / 3600)
    send_film(running)
    if who == "peer":
        running.settle()
        assert len(list(folder.iterdir())) == 3
        return
    letters = wait_for(running.node.store.pacs_status.dead_letters, "dead letters")
    assert {letter.problem for letter in letters} == {"could not be reached"}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("who", ["peer", "stranger"])
def test_storage_commitment_is_reported_over_tls(start_node, keys, who):
    reports = []

    def on_report(event):
        reports.append((event.event_type, event.event_information.TransactionUID))
        return 0x0000, None

    port, peer = free_port(), AE(ae_title="STORESCU")
    peer.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    peer.add_requested_context(StorageCommitmentPushModel)
    context = context_of(keys, who, "authority")
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    server = peer.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=context)
    try:
        me = {"ae_title": "STORESCU", "address": "127.0.0.1", "answer_to": [], "commitment_port": port}
        running = start_node(peers=[me], tls=tls_of(keys, "node"), give_up_hours=1 / 3600)
        asked, item = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
        asked.TransactionUID, asked.ReferencedSOPSequence = "1.2.3", [item]
        ours = client_context(Tls(**tls_of(keys, "peer")))
        association = peer.associate("127.0.0.1", running.port, ae_title="FRACTURE_DET", tls_args=(ours, "127.0.0.1"))
        status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        association.release()
        assert status.Status == 0
        if who == "peer":
            wait_for(lambda: reports, "the outcome")
            assert reports == [(2, "1.2.3")]
        else:
            [letter] = wait_for(running.node.store.pacs_status.dead_letters, "a dead letter")
            assert letter.problem == "could not be reached for storage commitment"
            assert reports == []
    finally:
        server.shutdown()
