"""The configuration: every fault is named by file, field and value; and the documents name every setting."""

import pytest
import yaml

from fracture_det.cli import pacs
from tests.paths import ROOT
from webapp.pacs.config import PacsConfig, PacsConfigError, Peer, read_config, secret

PEER = '[[peers]]\nae_title = "A"\naddress = "10.0.0.1"\nanswer_to = []\n'
FAULTS = {
    "port = 0\n" + PEER: "port: Input should be greater than or equal to 1, got 0",
    'ae_title = "more than sixteen characters"\n' + PEER: "ae_title",
    "colour = 1\n" + PEER: "colour: Extra inputs are not permitted, got 1",
    PEER.replace("10.0.0.1", "ward 3"): "peers.1.address: 'ward 3' does not appear to be an IPv4 or IPv6 network",
    PEER.replace("[]", '["ris"]'): "peers.answer_to: expected a name of [[destinations]] (there is none), got 'ris'",
    "port = 104\n": "expected at least one of [[peers]], [[polls]] and [[folders]]",
    PEER + PEER: "expected different titles",
    PEER + '[[destinations]]\nkind = "pigeon"\nname = "p"\n': "destinations.1",
    PEER + '[[destinations]]\nkind = "fhir"\nname = "f"\n': "destinations.1: expected either url or folder",
    PEER + '[[destinations]]\nkind = "hl7"\nname = "r"\nhost = "r"\nport = 2575\ntls = true\n': "expected [tls]",
    PEER
    + '[tls]\ncertificate = "a"\nkey = "a"\nauthority = "a"\n'
    + '[[destinations]]\nkind = "fhir"\nname = "f"\nurl = "http://f/"\ntls = true\n': "begins with https://, got http://f/",
    "port = [": "is not TOML",
}


@pytest.mark.parametrize(("text", "said"), FAULTS.items())
def test_a_fault_is_named(tmp_path, text, said):
    path = tmp_path / "pacs.toml"
    path.write_text(text)
    with pytest.raises(PacsConfigError) as raised:
        read_config(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)


def test_a_missing_file_and_a_missing_password_are_named(tmp_path, monkeypatch):
    with pytest.raises(PacsConfigError, match=r"nothing\.toml: cannot be read"):
        read_config(tmp_path / "nothing.toml")
    monkeypatch.delenv("ARCHIVE_PASSWORD", raising=False)
    with pytest.raises(PacsConfigError, match="ARCHIVE_PASSWORD"):
        secret("ARCHIVE_PASSWORD")


def test_the_command_says_what_is_wrong_and_has_an_exit_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FRACTURE_CALIBRATION", "x")  # remembered, and put back at the end
    monkeypatch.delenv("FRACTURE_CALIBRATION")
    assert pacs.main(["--config", str(tmp_path / "nothing.toml")]) == 2
    assert "nothing.toml: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "address", "known"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.2.3", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_a_peer_is_known_by_its_address(network, address, known):
    assert Peer(ae_title="A", address=network, answer_to=()).sends_from(address) is known


def test_every_setting_is_in_the_document_with_its_default():
    table = (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8")
    for name, field in PacsConfig.model_fields.items():
        assert f"`{name}`" in table or f"[[{name}]]" in table or f"[{name}]" in table, name
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert f"{field.default:g}" if isinstance(field.default, float) else str(field.default) in table, name


def test_the_configurations_of_the_document_and_of_compose_are_valid(tmp_path):
    text = (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8").partition("```toml")[2].partition("```")[0]
    (tmp_path / "pacs.toml").write_text(text)
    assert [known.kind for known in read_config(tmp_path / "pacs.toml").destinations] == ["dicom", "hl7"]
    assert read_config(ROOT / "docker" / "pacs.toml").destinations[0].outputs == ("sr", "gsps", "sc", "pdf")


def test_two_nodes_do_not_work_on_one_store(start_node):
    from webapp.store import StoreError

    running = start_node()
    with pytest.raises(StoreError, match="another node works on the queue"):
        start_node(settings=running.settings)


def test_the_profile_of_compose_has_the_node_as_closed_as_the_page():
    composed = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    node, orthanc = composed["services"]["node"], composed["services"]["orthanc"]
    assert node["profiles"] == orthanc["profiles"] == ["pacs"]
    assert node["read_only"] is True
    assert node["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in [*node["ports"], *orthanc["ports"]])
    assert "pacs" in node["entrypoint"]
    assert (ROOT / "requirements" / f"{node['build']['args']['REQUIREMENTS']}.txt").is_file()
