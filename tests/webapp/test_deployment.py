"""What docker/ ships: the files of the image are enough, and every variable that is set exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.webapp.bright import ROOT
from webapp.admin import become_owner_of
from webapp.settings import Settings
from webapp.store import Store
from webapp.store.audit import AuditEntry

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[list[str]]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in joined.splitlines() if line.startswith(f"{name} ")]


def settings_in(text: str) -> set[str]:
    return set(re.findall(r"\bFRACTURE_(?!DET\b)([A-Z0-9_]+)", text))  # FRACTURE_DET is the node's AE title


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "fracture_det.service"])
def test_every_variable_is_a_setting(file):
    known = {name.upper() for name in Settings.model_fields}
    variables = settings_in((ROOT / "docker" / file).read_text(encoding="utf-8"))
    assert variables
    assert variables <= known


def test_the_composition_is_closed_and_waits_for_its_database():
    composed = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    page = composed["services"]["page"]
    assert page["read_only"] is True
    assert page["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in page["ports"])
    assert page["depends_on"]["database"]["condition"] == "service_healthy"
    assert (ROOT / "docker" / page["build"]["context"] / page["build"]["dockerfile"]).resolve().is_file()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_unit_is_one():
    unit = str(ROOT / "docker" / "fracture_det.service")
    said = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False).stderr
    mine = [line for line in said.splitlines() if "fracture_det.service" in line]
    assert all("is not executable" in line for line in mine), said


def test_the_image_says_in_numbers_that_it_is_not_root():
    [[user]] = instructions("USER")
    assert re.fullmatch(r"([1-9]\d*):\1", user)
    assert f"--uid {user.partition(':')[0]} " in DOCKERFILE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_what_root_adds_belongs_to_the_page():
    above = Path(tempfile.mkdtemp(prefix="fracture-"))  # nobody else may enter pytest's folders
    above.chmod(0o755)
    folder = above / "data"
    Store(folder).close()
    audit = above / "data.audit"
    for path in (folder, *folder.rglob("*"), audit, *audit.rglob("*")):
        os.chown(path, 12345, 12346)
    secret = above / "secret"
    secret.write_text("root's own", encoding="utf-8")
    secret.chmod(0o600)
    (audit / "audit_head.lock").unlink(missing_ok=True)
    (audit / "audit_head.lock").symlink_to(secret)
    child = os.fork()
    if child == 0:  # becoming another cannot be taken back
        try:
            os.umask(0o077)
            become_owner_of(folder)
            store = Store(folder)
            store.audit.record(AuditEntry("command line", "add user", "anna"))
            store.close()
            os._exit(0)
        finally:  # nothing of the tests goes on here
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert secret.read_text(encoding="utf-8") == "root's own"
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in folder.glob("results.*")} == {(12345, 12346)}
    shutil.rmtree(above)


def test_the_files_of_the_image_are_enough(tmp_path):
    app = tmp_path / "app"
    for *sources, target in instructions("COPY"):
        if sources[0].startswith(("--from", "requirements")):
            continue
        place = tmp_path / target.lstrip("/")
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / source, place)
    assert "tests" not in {path.name for path in app.iterdir()}
    for path in [app, *app.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    environ = {"PATH": os.environ["PATH"], "FRACTURE_DATA_DIR": str(tmp_path / "data"), "PYTHONDONTWRITEBYTECODE": "1"}
    environ["FRACTURE_CALIBRATION"] = "weights/shipped/calibration.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "webapp", "--port", "0"], cwd=app, env=environ, text=True, stdout=subprocess.PIPE
    )
    try:
        said = [next(line for line in process.stdout if "http://" in line)]
        address = re.search(r"http://\S+", said[0])[0]
        with urllib.request.urlopen(f"{address}/readyz") as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)
        for path in [app, *app.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
