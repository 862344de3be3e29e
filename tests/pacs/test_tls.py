"""TLS of associations: who has a certificate of the authority is let in, and nobody else."""

import socket
import subprocess

import pytest

from tests.pacs.conftest import plate
from tests.pacs.films import dicom_object, write
from tests.pacs.programs import program, storescu
from webapp.pacs.config import PacsConfigError, Tls
from webapp.pacs.tls import client_context, server_context


def openssl(*arguments):
    subprocess.run([program("openssl"), *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """An authority and certificates: `node` and `peer` are signed by it, `stranger` by itself."""
    folder = tmp_path_factory.mktemp("keys")
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    for name in ("authority", "stranger"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    for name in ("node", "peer"):
        request, key = folder / f"{name}.csr", folder / f"{name}.key"
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        names = folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        signed = ("-CA", folder / "authority.pem", "-CAkey", folder / "authority.key", "-CAcreateserial", "-days", "2")
        openssl("x509", "-req", "-in", request, *signed, "-extfile", names, "-out", folder / f"{name}.pem")
    return folder


def tls_of(keys, name):
    return {"certificate": keys / f"{name}.pem", "key": keys / f"{name}.key", "authority": keys / "authority.pem"}


def options(keys, name):
    return ["+tls", keys / f"{name}.key", keys / f"{name}.pem", "+cf", keys / "authority.pem"]


def test_a_peer_with_a_certificate_sends(start_node, keys, tmp_path):
    running = start_node(tls=tls_of(keys, "node"))
    film = write(dicom_object(plate()), tmp_path / "a.dcm")
    storescu(running.port, [film], calling="STORESCU", extra=list(map(str, options(keys, "peer"))))
    assert sum(running.status().objects.values()) == 1


@pytest.mark.parametrize("who", ["stranger", None])
def test_a_peer_without_one_is_refused(start_node, keys, tmp_path, who):
    running = start_node(tls=tls_of(keys, "node"))
    film = write(dicom_object(plate()), tmp_path / "a.dcm")
    extra = [] if who is None else list(map(str, options(keys, who)))
    assert storescu(running.port, [film], calling="STORESCU", extra=extra, check=False).returncode != 0
    assert sum(running.status().objects.values()) == 0
    storescu(running.port, [film], calling="STORESCU", extra=list(map(str, options(keys, "peer"))))


def test_a_client_that_says_nothing_holds_up_nobody(start_node, keys, tmp_path):
    running = start_node(tls=tls_of(keys, "node"), idle_s=3)
    film = write(dicom_object(plate()), tmp_path / "a.dcm")
    with socket.create_connection(("127.0.0.1", running.port), 30) as silent:
        storescu(running.port, [film], calling="STORESCU", extra=list(map(str, options(keys, "peer"))))
        silent.settimeout(60)
        assert silent.recv(1) == b"", "it is closed after the time that one may be silent"
    assert sum(running.status().objects.values()) == 1


def test_old_versions_and_ciphers_are_not_spoken(keys):
    for context in (server_context(Tls(**tls_of(keys, "node"))), client_context(Tls(**tls_of(keys, "node")))):
        assert context.minimum_version.name == "TLSv1_2"
        names = [cipher["name"] for cipher in context.get_ciphers()]
        assert names
        assert all(name.startswith(("TLS_", "ECDHE-", "DHE-")) for name in names)
        assert all("GCM" in name or "CHACHA20" in name for name in names)


def test_a_key_that_cannot_be_used_is_named(keys, tmp_path):
    with pytest.raises(PacsConfigError, match=r"node\.pem"):
        server_context(Tls(**{**tls_of(keys, "node"), "key": keys / "peer.key"}))
