"""What docker/ ships: the files of the image are enough, and every variable that is set exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request

import pytest
import yaml

from tests.webapp.bright import ROOT
from webapp.settings import Settings
from webapp.store import Store
from webapp.store.audit import Act

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[list[str]]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in joined.splitlines() if line.startswith(f"{name} ")]


def settings_in(text: str) -> set[str]:
    return set(re.findall(r"\bFRACTURE_([A-Z0-9_]+)", text))


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "fracture_det.service"])
def test_every_variable_is_a_setting(file):
    known = {name.upper() for name in Settings.__dataclass_fields__}
    found = settings_in((ROOT / "docker" / file).read_text(encoding="utf-8"))
    assert found
    assert found <= known


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for others")
def test_what_root_adds_the_page_can_read(tmp_path):
    folder = tmp_path / "data"
    Store(folder).close()
    os.chown(folder, 12345, 12346)
    before = os.umask(0o077)
    try:
        store = Store(folder)
        store.audit.record(Act("command line", "add user", "anna"))
        store.close()
    finally:
        os.umask(before)
    noted = [path.stat() for path in folder.glob("audit_head.*")]
    assert [(one.st_uid, one.st_gid) for one in noted] == [(12345, 12346)] * 2


@pytest.mark.slow
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
