"""The profile `pacs` of docker/compose.yaml, as far as it can be checked without Docker; docs/pacs.md has the rest."""

import json
import re

import pytest
import yaml

from tests.pacs.films import dicom_object, encoded, example_pixels
from tests.pacs.programs import Orthanc, RunningNode, wait_for
from tests.paths import ROOT

DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
SERVICES = yaml.safe_load(COMPOSE)["services"]
PASSWORD = "a password"


def test_every_image_has_a_name_and_a_version():
    for name, service in SERVICES.items():
        assert ("image" in service) != ("build" in service), name
        assert re.fullmatch(r"([a-z0-9]+/)?[a-z0-9]+:[0-9.]+", service.get("image", "a:1")), name


def test_every_variable_is_required_or_has_a_default_and_is_in_the_document():
    document = "".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("deployment", "pacs"))
    variables = re.findall(r"\$\{([A-Z_]+)(:[?-])?", COMPOSE)
    assert {"POSTGRES_PASSWORD", "ORTHANC_PASSWORD", "FRACTURE_SECRET_KEY"} <= {name for name, _ in variables}
    required = {name for name, how in variables if how == ":?"}
    for name, how in variables:
        assert how or name in required, name  # only as the default of another
        assert name in document


def test_what_is_mounted_is_there_and_every_name_is_a_service():
    volumes = yaml.safe_load(COMPOSE)["volumes"]
    for name, service in SERVICES.items():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert (DOCKER / source).is_file() if source.startswith(".") else source in volumes, name
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
    [[_, host, port]] = json.loads((DOCKER / "orthanc.json").read_text("utf-8"))["DicomModalities"].values()
    assert host in SERVICES
    assert any(published.endswith(f":{port}") for published in SERVICES[host]["ports"])


def replaced(text, *pairs):
    """Return a text with what only the network of Docker knows replaced, each of it once."""
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.mark.slow
def test_its_orthanc_and_its_node_exchange_a_study(tmp_path):
    """Debian's Orthanc reads the very orthanc.json; only addresses of the network of Docker are replaced."""
    orthanc = Orthanc(
        tmp_path / "orthanc", configuration=(DOCKER / "orthanc.json").read_text("utf-8"), password=PASSWORD
    )
    config = replaced(
        (DOCKER / "pacs.toml").read_text("utf-8"),
        ('ae_title = "FRACTURE_DET"\nhost = "0.0.0.0"\n', 'host = "127.0.0.1"\nquiet_s = 0.5\n'),
        ('"192.168.0.0/16"]', '"192.168.0.0/16", "127.0.0.1"]'),
        ('host = "orthanc"\nport = 4242\n', f'host = "127.0.0.1"\nport = {orthanc.port}\n'),
    )
    node = RunningNode(tmp_path / "node", config, module="tests.pacs.bright_node", FRACTURE_DETECTOR="bright:0").start()
    try:
        assert orthanc.get("/modalities?expand")["node"]["Host"] == "node"
        orthanc.put("/modalities/node", ["FRACTURE_DET", "127.0.0.1", node.port])
        film = dicom_object(example_pixels(), 1)
        instance = orthanc.post("/instances", encoded(film))["ID"]
        orthanc.post("/modalities/node/store", [instance])
        wait_for(lambda: len(orthanc.answers().get(film.StudyInstanceUID, ())) == 4, "the answer", 120)
        assert [kind for kind, _ in orthanc.answers()[film.StudyInstanceUID]] == ["DOC", "OT", "PR", "SR"]
        [study] = orthanc.get("/dicom-web/studies")
        assert study["0020000D"]["Value"] == [film.StudyInstanceUID]
    finally:
        node.stop()
        orthanc.close()
